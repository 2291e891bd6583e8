// A daemon's memory holds passwords, and a core dump of it would put them on a disk. PostgreSQL's is the
// administrator's to decide: children get the limit that the daemon was started with.
#pragma once

namespace pgvigil::os {

void forbid_core_dumps();     // of this process, once at its start
void give_back_core_limit();  // before exec; safe after fork
}  // namespace pgvigil::os
