// base/stop.h
// Ctrl-C and SIGTERM as a flag: long work polls stop_requested() at safe points, saves, and throws
// Error(kCancelled). A second Ctrl-C within the same process ends it at once.
#pragma once

namespace stoker {

void install_stop_handler();  // once, from main
bool stop_requested();
void request_stop();  // what the handler does; for tests and for embedding
void clear_stop();    // tests

}  // namespace stoker
