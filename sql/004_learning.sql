-- Version 4: a monitor that has lost its memory learns from its nodes (monitor/fsm/README.md, "A monitor without memory").
ALTER TABLE pgvigil.grp ADD learning boolean NOT NULL DEFAULT false;
ALTER TABLE pgvigil.node ADD account jsonb;  -- what the node has told since then

-- Grows with every decision. A database whose number is lower than the one that was written down beside it is an old one.
CREATE TABLE pgvigil.memory (generation bigint NOT NULL);
INSERT INTO pgvigil.memory VALUES (0);
