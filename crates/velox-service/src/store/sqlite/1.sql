CREATE TABLE builds (
    -- The order in which they were asked for.
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    key TEXT NOT NULL,
    tenant TEXT NOT NULL,
    state TEXT NOT NULL,
    -- How many tenants want it.
    wanted INTEGER NOT NULL,
    -- In seconds since 1970.
    finished INTEGER,
    sha256 TEXT,
    -- What `Artifact` says of it, as JSON.
    artifact TEXT,
    -- The whole, as JSON, save for the lock.
    build TEXT NOT NULL,
    lock TEXT
);
CREATE UNIQUE INDEX live ON builds (key) WHERE state IN ('queued', 'running');
CREATE INDEX succeeded ON builds (key, number) WHERE state = 'succeeded';
CREATE INDEX states ON builds (state) WHERE state IN ('queued', 'running');
CREATE INDEX finished ON builds (finished) WHERE finished IS NOT NULL;
CREATE INDEX artifacts ON builds (sha256) WHERE sha256 IS NOT NULL;

-- The lines of queued builds: one for each tenant who wants it.
CREATE TABLE waiting (
    tenant TEXT NOT NULL,
    -- 0: it was taken before, and comes before the others; 1: it wasn't.
    place INTEGER NOT NULL,
    build INTEGER NOT NULL,
    PRIMARY KEY (tenant, place, build)
) WITHOUT ROWID;
CREATE INDEX waiting_builds ON waiting (build);

CREATE TABLE log (
    build INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    entry TEXT NOT NULL,
    PRIMARY KEY (build, seq)
) WITHOUT ROWID;
