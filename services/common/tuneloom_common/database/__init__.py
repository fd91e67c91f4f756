"""A service's metadata database: opened and migrated by URL, read and written in short transactions."""

from tuneloom_common.database.limits import DatabaseSettings, Limits
from tuneloom_common.database.opening import open_database
from tuneloom_common.database.transactions import Database, Transaction
from tuneloom_common.database.values import utc
from tuneloom_common.database.words import Words

__all__ = ["Database", "DatabaseSettings", "Limits", "Transaction", "Words", "open_database", "utc"]
