"""Collections, versions of documents, numbered chunks with their text.

Documents are indexed again after this migration: their text is kept, their chunks and vectors are made anew.
"""

import sqlalchemy as sa
from alembic import op

revision = '0002'
down_revision = '0001'


def upgrade() -> None:
    with op.batch_alter_table('messages') as messages:
        messages.add_column(sa.Column('retrieval', sa.JSON(), nullable=True))
    op.create_table('counters',
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('value', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('name', name=op.f('pk_counters'))
    )
    op.execute("INSERT INTO counters (name, value) VALUES ('chunks', 1)")
    _jobs()
    op.drop_table('chunks')
    _versions()
    _documents()
    op.create_table('chunks',
    sa.Column('n', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), autoincrement=False, nullable=False),
    sa.Column('version_id', sa.Text(), nullable=False),
    sa.Column('ordinal', sa.Integer(), nullable=False),
    sa.Column('start', sa.Integer(), nullable=False),
    sa.Column('end', sa.Integer(), nullable=False),
    sa.Column('page', sa.Integer(), nullable=True),
    sa.Column('heading', sa.Text(), nullable=True),
    sa.Column('context', sa.Text(), nullable=True),
    sa.Column('text', sa.Text(), nullable=False),
    sa.Column('after', sa.Text(), nullable=True),
    sa.Column('spans', sa.LargeBinary(), nullable=False),
    sa.ForeignKeyConstraint(['version_id'], ['document_versions.id'], name=op.f('fk_chunks_version_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('n', name=op.f('pk_chunks'))
    )
    op.create_index(op.f('ix_chunks_version_id'), 'chunks', ['version_id'], unique=False)
    op.create_table('chunk_vectors',
    sa.Column('n', sa.BigInteger(), nullable=False),
    sa.Column('embedding', sa.Text(), nullable=False),
    sa.Column('vectors', sa.LargeBinary(), nullable=False),
    sa.ForeignKeyConstraint(['n'], ['chunks.n'], name=op.f('fk_chunk_vectors_n'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('n', 'embedding', name=op.f('pk_chunk_vectors'))
    )


def _jobs() -> None:
    op.create_table('new_jobs',
    sa.Column('id', sa.Text(), nullable=False),
    sa.Column('owner', sa.Text(), nullable=False),
    sa.Column('kind', sa.Text(), nullable=False),
    sa.Column('collection_id', sa.Text(), nullable=False),
    sa.Column('document_id', sa.Text(), nullable=True),
    sa.Column('version_id', sa.Text(), nullable=True),
    sa.Column('stage', sa.Text(), nullable=False),
    sa.Column('progress', sa.JSON(), nullable=False),
    sa.Column('attempts', sa.Integer(), nullable=False),
    sa.Column('instance_id', sa.Text(), nullable=True),
    sa.Column('lease_until', sa.BigInteger(), nullable=False),
    sa.Column('reason_code', sa.Text(), nullable=True),
    sa.Column('reason', sa.Text(), nullable=True),
    sa.Column('created_at', sa.BigInteger(), nullable=False),
    sa.Column('updated_at', sa.BigInteger(), nullable=False),
    sa.ForeignKeyConstraint(['collection_id'], ['collections.id'], name=op.f('fk_jobs_collection_id'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['document_id'], ['documents.id'], name=op.f('fk_jobs_document_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_jobs'))
    )
    op.execute("""
        INSERT INTO new_jobs
        SELECT j.id, j.owner, 'ingest', d.collection_id, j.document_id, j.version_id,
               CASE j.stage WHEN 'failed' THEN 'failed' ELSE 'queued' END,
               CASE j.stage WHEN 'failed' THEN j.progress ELSE '{}' END,
               0, NULL, 0, d.reason_code, j.reason, j.created_at, j.updated_at
        FROM jobs j JOIN documents d ON d.id = j.document_id""")
    op.drop_table('jobs')
    op.rename_table('new_jobs', 'jobs')
    op.create_index(op.f('ix_jobs_collection_id'), 'jobs', ['collection_id'], unique=False)
    op.create_index(op.f('ix_jobs_document_id'), 'jobs', ['document_id'], unique=False)
    op.create_index(op.f('ix_jobs_stage_owner_lease_until'), 'jobs', ['stage', 'owner', 'lease_until'], unique=False)


def _versions() -> None:
    op.create_table('new_versions',
    sa.Column('id', sa.Text(), nullable=False),
    sa.Column('owner', sa.Text(), nullable=False),
    sa.Column('document_id', sa.Text(), nullable=False),
    sa.Column('collection_id', sa.Text(), nullable=False),
    sa.Column('sha256', sa.Text(), nullable=False),
    sa.Column('size', sa.BigInteger(), nullable=False),
    sa.Column('status', sa.Text(), nullable=False),
    sa.Column('reason_code', sa.Text(), nullable=True),
    sa.Column('reason', sa.Text(), nullable=True),
    sa.Column('media_type', sa.Text(), nullable=True),
    sa.Column('title', sa.Text(), nullable=True),
    sa.Column('language', sa.Text(), nullable=True),
    sa.Column('pages', sa.Integer(), nullable=True),
    sa.Column('first_chunk', sa.BigInteger(), nullable=True),
    sa.Column('chunks', sa.Integer(), nullable=True),
    sa.Column('created_at', sa.BigInteger(), nullable=False),
    sa.Column('map', sa.JSON(), nullable=True),
    sa.Column('text', sa.Text(), nullable=True),
    sa.ForeignKeyConstraint(['document_id'], ['documents.id'], name=op.f('fk_document_versions_document_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_document_versions'))
    )
    op.execute("""
        INSERT INTO new_versions
        SELECT v.id, v.owner, v.document_id, v.collection_id, v.sha256, v.size,
               CASE d.status WHEN 'failed' THEN 'failed' ELSE 'queued' END, d.reason_code, d.reason,
               v.media_type, v.title, NULL, v.pages, NULL, NULL, v.created_at, v.map, v.text
        FROM document_versions v JOIN documents d ON d.id = v.document_id""")
    op.drop_table('document_versions')
    op.rename_table('new_versions', 'document_versions')
    op.create_index('uq_document_versions_collection_id_sha256', 'document_versions', ['collection_id', 'sha256'],
                    unique=True, sqlite_where=sa.text("status != 'superseded'"),
                    postgresql_where=sa.text("status != 'superseded'"))
    op.create_index(op.f('ix_document_versions_document_id'), 'document_versions', ['document_id'], unique=False)


def _documents() -> None:
    # Columns are added instead of making a new table: dropping the table would take its versions and jobs along.
    op.add_column('documents', sa.Column('pending_version', sa.Text(), nullable=True))
    op.execute("""
        UPDATE documents SET active_version = NULL,
            pending_version = (SELECT v.id FROM document_versions v WHERE v.document_id = documents.id)""")
    op.drop_column('documents', 'status')
    op.drop_column('documents', 'reason_code')
    op.drop_column('documents', 'reason')
    op.create_index(op.f('ix_documents_collection_id_id'), 'documents', ['collection_id', 'id'], unique=False)
