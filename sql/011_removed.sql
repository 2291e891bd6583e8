-- Version 11: which system a removed node was of. At the wrong monitor a node may have the number of one that was removed there.
ALTER TABLE pgvigil.removed_node ADD system_identifier numeric;
