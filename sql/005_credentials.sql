-- Version 5: each keeper has a login role of its own, pgvigil_keeper_<id> (130_doors.sql). It ends with the row of its node, and none begins with one that
-- was left over.
CREATE FUNCTION pgvigil.drop_keeper_role() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  role text := 'pgvigil_keeper_' || CASE WHEN TG_OP = 'DELETE' THEN OLD.id ELSE NEW.id END;
BEGIN
  IF to_regrole(role) IS NULL THEN RETURN NULL; END IF;
  EXECUTE format('DROP ROLE %I', role);
  RETURN NULL;
EXCEPTION WHEN dependent_objects_still_exist THEN
  -- Somebody has granted it something. No node stays for that.
  EXECUTE format('ALTER ROLE %I NOLOGIN PASSWORD NULL', role);
  RETURN NULL;
END $$;
CREATE TRIGGER drop_keeper_role AFTER INSERT OR DELETE ON pgvigil.node FOR EACH ROW EXECUTE FUNCTION pgvigil.drop_keeper_role();
