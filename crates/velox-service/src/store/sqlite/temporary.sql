CREATE TEMP TABLE leases (
    token TEXT NOT NULL PRIMARY KEY,
    build INTEGER NOT NULL UNIQUE,
    -- Whose turn it was.
    tenant TEXT NOT NULL,
    worker TEXT NOT NULL,
    -- In milliseconds since the start.
    until INTEGER NOT NULL
) WITHOUT ROWID;

-- When it was whose turn, the last time.
CREATE TEMP TABLE turns (
    tenant TEXT NOT NULL PRIMARY KEY,
    turn INTEGER NOT NULL
) WITHOUT ROWID;
