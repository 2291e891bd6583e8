-- Version 9: of which order the stored report is. A keeper may have two sessions for a moment, and the older one's word may come last.
ALTER TABLE pgvigil.node_report ADD of_term bigint NOT NULL DEFAULT 0;
ALTER TABLE pgvigil.node_report ADD of_seq bigint NOT NULL DEFAULT 0;
