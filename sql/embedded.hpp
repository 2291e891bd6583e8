// The SQL files of this folder, compiled into the binary, so that a monitor can create and migrate its schema anywhere.
#pragma once
#include <string_view>
#include <vector>

namespace pgvigil::sql {

struct EmbeddedFile {
  std::string_view name;  // "001_schema.sql"
  std::string_view text;
};

// All files, sorted by name.
const std::vector<EmbeddedFile>& embedded_files();

}  // namespace pgvigil::sql
