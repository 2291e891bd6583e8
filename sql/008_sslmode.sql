-- Version 8: how libpq is to reach a node's PostgreSQL. Its keeper says so, when it has seen that it works.
ALTER TABLE pgvigil.node ADD sslmode text NOT NULL DEFAULT 'prefer' CHECK (sslmode IN ('prefer', 'require', 'verify-ca', 'verify-full'));
