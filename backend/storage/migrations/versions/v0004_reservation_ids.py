"""`reservations.run_id` becomes `id`: a call outside of runs has a reservation, too."""

from alembic import op

revision = '0004'
down_revision = '0003'


def upgrade() -> None:
    op.alter_column('reservations', 'run_id', new_column_name='id')
