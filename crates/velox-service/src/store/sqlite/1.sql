CREATE TABLE builds (
    -- In order of submission.
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    key TEXT NOT NULL,
    tenant TEXT NOT NULL,
    state TEXT NOT NULL,
    -- The number of requesting tenants.
    wanted INTEGER NOT NULL,
    -- Seconds since 1970.
    finished INTEGER,
    sha256 TEXT,
    -- `ArtifactInfo` as JSON.
    artifact TEXT,
    -- `Build` as JSON, without the lock.
    build TEXT NOT NULL,
    lock TEXT
);
CREATE UNIQUE INDEX live ON builds (key) WHERE state IN ('queued', 'running');
CREATE INDEX succeeded ON builds (key, number) WHERE state = 'succeeded';
CREATE INDEX states ON builds (state) WHERE state IN ('queued', 'running');
CREATE INDEX finished ON builds (finished) WHERE finished IS NOT NULL;
CREATE INDEX artifacts ON builds (sha256) WHERE sha256 IS NOT NULL;

-- The queue: a row per build and requesting tenant.
CREATE TABLE waiting (
    tenant TEXT NOT NULL,
    -- 0: it was leased before, and precedes the others; 1: otherwise.
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
