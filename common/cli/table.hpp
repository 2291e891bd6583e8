// A table of text for a person: columns as wide as their widest cell, as psql prints it.
#pragma once
#include <string>
#include <vector>

namespace pgvigil::cli {

enum class Align { left, right };

class Table {
 public:
  explicit Table(std::vector<std::string> header);
  void align(std::size_t column, Align align);
  void add(std::vector<std::string> cells);  // missing cells are empty
  bool empty() const { return rows_.empty(); }
  std::string text() const;  // header, rule, rows; every line ends with '\n', none with a space

 private:
  std::vector<std::string> header_;
  std::vector<Align> align_;
  std::vector<std::vector<std::string>> rows_;
};

// How many columns of a terminal `text` (UTF-8) takes, with one column for each character.
std::size_t display_width(const std::string& text);

}  // namespace pgvigil::cli
