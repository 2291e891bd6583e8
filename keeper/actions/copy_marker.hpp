// The file that stands beside PGDATA while this is being copied or rewound.
#pragma once
#include <filesystem>
#include <functional>
#include <optional>
#include <vector>

#include "keeper/actions/node.hpp"

namespace pgvigil::keeper {

// A copy or a rewind was begun and not finished: PGDATA can't be started.
bool copy_unfinished(const Node& node);
void rewind_begins(const Node& node);
// pg_basebackup fills the tablespaces before it makes the links to them. `filling` are those that had nothing in them
// when it began: only what a copy that broke off has left there may be removed. `wal` is the directory to which the
// link pg_wal goes: that link is gone between two attempts.
void base_backup_begins(const Node& node, const std::vector<std::filesystem::path>& filling,
                        const std::optional<std::filesystem::path>& wal);
// What was copied is whole from here on. `save` first: whoever is killed in between copies again, and what was known of
// the old PGDATA is never believed of the new one. When it throws, the copy stays unfinished.
void copy_ends(const Node& node, const std::function<void()>& save);

// The directories that a base backup which broke off was filling.
std::vector<std::filesystem::path> half_filled(const Node& node);
// Where pg_wal lies when it is a link, or was one before a base backup that broke off.
std::optional<std::filesystem::path> wal_elsewhere(const Node& node);

}  // namespace pgvigil::keeper
