"""Revision 2: how the joules of a job and of a picture came about."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("jobs", "images"):
        op.add_column(table, sa.Column("energy_method", sa.String(length=200), nullable=True))
