#include "common/cli/table.hpp"

#include <algorithm>

namespace pgvigil::cli {

namespace {

// What comes from a server goes to a terminal: no escape sequences, no line breaks.
std::string printable(const std::string& text) {
  std::string clean = text;
  for (char& c : clean) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) c = ' ';
  }
  return clean;
}

std::string padded(const std::string& cell, std::size_t width, Align align) {
  const std::string fill(width - std::min(width, display_width(cell)), ' ');
  return align == Align::right ? fill + cell : cell + fill;
}

}  // namespace

std::size_t display_width(const std::string& text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

Table::Table(std::vector<std::string> header) : header_(std::move(header)), align_(header_.size(), Align::left) {}

void Table::align(std::size_t column, Align align) {
  align_.at(column) = align;
}

void Table::add(std::vector<std::string> cells) {
  cells.resize(header_.size());
  for (std::string& cell : cells) cell = printable(cell);
  rows_.push_back(std::move(cells));
}

std::string Table::text() const {
  std::vector<std::size_t> widths;
  for (const std::string& name : header_) widths.push_back(display_width(name));
  for (const auto& row : rows_) {
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], display_width(row[i]));
  }
  const auto line = [&](const std::vector<std::string>& cells) {
    std::string text;
    for (std::size_t i = 0; i < cells.size(); ++i)
      text += (i == 0 ? " " : " | ") + padded(cells[i], widths[i], align_[i]);
    return text.substr(0, text.find_last_not_of(' ') + 1) + "\n";
  };
  std::string text = line(header_);
  for (std::size_t i = 0; i < widths.size(); ++i) text += (i == 0 ? "" : "+") + std::string(widths[i] + 2, '-');
  text += "\n";
  for (const auto& row : rows_) text += line(row);
  return text;
}

}  // namespace pgvigil::cli
