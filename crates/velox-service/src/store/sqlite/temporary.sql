CREATE TEMP TABLE leases (
    token TEXT NOT NULL PRIMARY KEY,
    build INTEGER NOT NULL UNIQUE,
    -- The tenant in whose turn it was leased.
    tenant TEXT NOT NULL,
    worker TEXT NOT NULL,
    -- Milliseconds since the start of the process.
    until INTEGER NOT NULL
) WITHOUT ROWID;

-- The last turn of each tenant.
CREATE TEMP TABLE turns (
    tenant TEXT NOT NULL PRIMARY KEY,
    turn INTEGER NOT NULL
) WITHOUT ROWID;
