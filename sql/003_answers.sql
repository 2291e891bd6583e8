-- Version 3: the answer to a heartbeat that says nothing new is kept beside the report, and is good for as long as the group stays as it was.
ALTER TABLE pgvigil.grp ADD version bigint NOT NULL DEFAULT 0;      -- grows with every change of the row
ALTER TABLE pgvigil.node_report ADD said text NOT NULL DEFAULT '';  -- the last report, without the progress of WAL
ALTER TABLE pgvigil.node_report ADD answer jsonb;
ALTER TABLE pgvigil.node_report ADD formation text;
ALTER TABLE pgvigil.node_report ADD group_id integer;
ALTER TABLE pgvigil.node_report ADD answer_version bigint NOT NULL DEFAULT -1;  -- of the group when the answer was made, or before; -1: none is kept

-- Every order is given in a transaction that updates the group's row: the answers that are kept for its nodes end with it.
CREATE FUNCTION pgvigil.changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.version := OLD.version + 1;
  RETURN NEW;
END $$;
CREATE TRIGGER changed BEFORE UPDATE ON pgvigil.grp FOR EACH ROW EXECUTE FUNCTION pgvigil.changed();

-- It is updated by every heartbeat. Giving its last pages back would lock it, and all of them would wait.
ALTER TABLE pgvigil.node_report SET (vacuum_truncate = false);
