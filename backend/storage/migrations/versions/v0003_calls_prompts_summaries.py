"""Calls and what they cost, prompt templates, summaries of long conversations, pictures."""

import sqlalchemy as sa
from alembic import op

revision = '0003'
down_revision = '0002'


def upgrade() -> None:
    with op.batch_alter_table('messages') as messages:
        messages.add_column(sa.Column('model', sa.Text(), nullable=True))
        messages.add_column(sa.Column('prompt', sa.JSON(), nullable=True))
    op.create_index(op.f('ix_messages_session_id_parent_id'), 'messages', ['session_id', 'parent_id'], unique=False)
    op.add_column('runs', sa.Column('prompt', sa.JSON(), nullable=True))
    op.execute("""
        UPDATE messages SET model = (SELECT r.model FROM runs r WHERE r.id = messages.run_id)
        WHERE role = 'assistant'""")
    _calls()
    _prompts()
    _images()
    op.create_table('summaries',
    sa.Column('message_id', sa.Text(), nullable=False),
    sa.Column('owner', sa.Text(), nullable=False),
    sa.Column('session_id', sa.Text(), nullable=False),
    sa.Column('model', sa.Text(), nullable=False),
    sa.Column('text', sa.Text(), nullable=False),
    sa.Column('created_at', sa.BigInteger(), nullable=False),
    sa.ForeignKeyConstraint(['message_id'], ['messages.id'], name=op.f('fk_summaries_message_id'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['session_id'], ['sessions.id'], name=op.f('fk_summaries_session_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('message_id', name=op.f('pk_summaries'))
    )
    op.create_index(op.f('ix_summaries_session_id'), 'summaries', ['session_id'], unique=False)


def _images() -> None:
    op.create_table('images',
    sa.Column('id', sa.Text(), nullable=False),
    sa.Column('owner', sa.Text(), nullable=False),
    sa.Column('session_id', sa.Text(), nullable=False),
    sa.Column('media_type', sa.Text(), nullable=False),
    sa.Column('created_at', sa.BigInteger(), nullable=False),
    sa.Column('data', sa.LargeBinary(), nullable=False),
    sa.ForeignKeyConstraint(['session_id'], ['sessions.id'], name=op.f('fk_images_session_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_images'))
    )
    op.create_index(op.f('ix_images_session_id'), 'images', ['session_id'], unique=False)


def _calls() -> None:
    op.create_table('calls',
    sa.Column('id', sa.Text(), nullable=False),
    sa.Column('owner', sa.Text(), nullable=False),
    sa.Column('run_id', sa.Text(), nullable=True),
    sa.Column('session_id', sa.Text(), nullable=True),
    sa.Column('purpose', sa.Text(), nullable=False),
    sa.Column('model', sa.Text(), nullable=False),
    sa.Column('status', sa.Text(), nullable=False),
    sa.Column('input_tokens', sa.BigInteger(), nullable=False),
    sa.Column('output_tokens', sa.BigInteger(), nullable=False),
    sa.Column('reasoning_tokens', sa.BigInteger(), nullable=True),
    sa.Column('cached_tokens', sa.BigInteger(), nullable=True),
    sa.Column('estimated', sa.Integer(), nullable=False),
    sa.Column('price', sa.JSON(), nullable=True),
    sa.Column('cost', sa.BigInteger(), nullable=True),
    sa.Column('created_at', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_calls'))
    )
    op.create_index(op.f('ix_calls_owner_created_at'), 'calls', ['owner', 'created_at'], unique=False)
    op.create_index(op.f('ix_calls_run_id'), 'calls', ['run_id'], unique=False)
    op.create_table('reservations',
    sa.Column('run_id', sa.Text(), nullable=False),
    sa.Column('owner', sa.Text(), nullable=False),
    sa.Column('amount', sa.BigInteger(), nullable=False),
    sa.Column('created_at', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('run_id', name=op.f('pk_reservations'))
    )
    op.create_index(op.f('ix_reservations_owner'), 'reservations', ['owner'], unique=False)
    op.create_table('spendings',
    sa.Column('owner', sa.Text(), nullable=False),
    sa.Column('day', sa.Integer(), autoincrement=False, nullable=False),
    sa.Column('amount', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('owner', 'day', name=op.f('pk_spendings'))
    )


def _prompts() -> None:
    op.create_table('prompts',
    sa.Column('id', sa.Text(), nullable=False),
    sa.Column('owner', sa.Text(), nullable=False),
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('created_at', sa.BigInteger(), nullable=False),
    sa.Column('updated_at', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_prompts')),
    sa.UniqueConstraint('owner', 'name', name=op.f('uq_prompts_owner_name'))
    )
    op.create_table('prompt_versions',
    sa.Column('prompt_id', sa.Text(), nullable=False),
    sa.Column('n', sa.Integer(), autoincrement=False, nullable=False),
    sa.Column('owner', sa.Text(), nullable=False),
    sa.Column('content', sa.JSON(), nullable=False),
    sa.Column('note', sa.Text(), nullable=True),
    sa.Column('created_at', sa.BigInteger(), nullable=False),
    sa.ForeignKeyConstraint(['prompt_id'], ['prompts.id'], name=op.f('fk_prompt_versions_prompt_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('prompt_id', 'n', name=op.f('pk_prompt_versions'))
    )
    op.create_table('prompt_labels',
    sa.Column('prompt_id', sa.Text(), nullable=False),
    sa.Column('label', sa.Text(), nullable=False),
    sa.Column('owner', sa.Text(), nullable=False),
    sa.Column('n', sa.Integer(), nullable=False),
    sa.ForeignKeyConstraint(['prompt_id'], ['prompts.id'], name=op.f('fk_prompt_labels_prompt_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('prompt_id', 'label', name=op.f('pk_prompt_labels'))
    )
