-- The builds of a tenant are counted without reading them.
DROP INDEX states;
CREATE INDEX states ON builds (state, tenant) WHERE state IN ('queued', 'running');
