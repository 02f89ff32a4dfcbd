"""Sessions can be pinned and archived; answers have feedback; texts of messages can be searched."""

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = '0005'
down_revision = '0004'

_BATCH = 500


def upgrade() -> None:
    for name in ('pinned', 'archived'):
        op.add_column('sessions', sa.Column(name, sa.Integer(), nullable=False, server_default='0'))
    op.drop_index('ix_sessions_owner_updated_at_id', 'sessions')
    op.create_index(
        'ix_sessions_owner_archived_pinned_updated_at_id',
        'sessions',
        ['owner', 'archived', 'pinned', 'updated_at', 'id'],
    )
    op.create_index('ix_runs_owner_started_at_id', 'runs', ['owner', 'started_at', 'id'])
    op.create_table(
        'feedback',
        sa.Column('message_id', sa.Text(), nullable=False),
        sa.Column('owner', sa.Text(), nullable=False),
        sa.Column('session_id', sa.Text(), nullable=False),
        sa.Column('rating', sa.Text(), nullable=False),
        sa.Column('comment', sa.Text()),
        sa.Column('updated_at', sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(['message_id'], ['messages.id'], name='fk_feedback_message_id', ondelete='CASCADE'),
        sa.ForeignKeyConstraint(['session_id'], ['sessions.id'], name='fk_feedback_session_id', ondelete='CASCADE'),
        sa.PrimaryKeyConstraint('message_id', name='pk_feedback'),
    )
    op.create_index('ix_feedback_session_id', 'feedback', ['session_id'])
    op.create_table(
        'message_texts',
        sa.Column('n', sa.Integer(), nullable=False),
        sa.Column('message_id', sa.Text(), nullable=False),
        sa.Column('owner', sa.Text(), nullable=False),
        sa.Column('text', sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ['message_id'], ['messages.id'], name='fk_message_texts_message_id', ondelete='CASCADE'
        ),
        sa.PrimaryKeyConstraint('n', name='pk_message_texts'),
        sa.UniqueConstraint('message_id', name='uq_message_texts_message_id'),
    )
    _store_texts(op.get_bind())


def _store_texts(connection: Any) -> None:
    after = (-1, '')
    while True:
        rows = connection.execute(
            sa.text(
                'SELECT created_at, id, owner, parts FROM messages WHERE (created_at, id) > (:moment, :id) '
                'ORDER BY created_at, id LIMIT :limit'
            ),
            {'moment': after[0], 'id': after[1], 'limit': _BATCH},
        ).fetchall()
        if not rows:
            return
        after = (rows[-1][0], rows[-1][1])
        texts = [{'message_id': id_, 'owner': owner, 'text': _text(parts)} for _, id_, owner, parts in rows]
        if found := [row for row in texts if row['text']]:
            connection.execute(
                sa.text('INSERT INTO message_texts (message_id, owner, text) VALUES (:message_id, :owner, :text)'), found
            )


def _text(parts: str) -> str:
    return '\n\n'.join(part.get('text', '') for part in json.loads(parts) if part.get('type') == 'text').strip()
