-- When the quota of builds per hour is full again, in milliseconds since 1970.
CREATE TABLE rates (
    tenant TEXT NOT NULL PRIMARY KEY,
    full_at INTEGER NOT NULL
) WITHOUT ROWID;
