//! The program from outside: the built binary on a tiny task, as a person at a shell or a script would use it.
//!
//! One binary for all of it, a module a subject. What is right in numbers is proved in the crates; here it is what a
//! command promises: its files, its JSON, its refusals, what a stop leaves behind.

// The whole job.
mod commands; // command by command: JSON printed, files left
mod compare; // two arms over several seeds
mod masked_lm; // a masked-language model from texts alone, and what it says of every token
mod objective; // class weights, focal loss, R-Drop
mod optimizer; // which parameters are trained, at which rate, and the average that is kept
mod pretrained; // students that were trained before, teachers that are not here
mod propose; // students that fit, counted and timed
mod recipes; // `run` and `demo`: one folder, each stage done once
mod signals; // a teacher beside its student, and texts without labels
mod stages; // trainings one after another
mod students; // what a student starts from, and its sizes
mod tune; // settings that are searched for, and what is chosen

// Data.
mod data; // every format of a file says the same
mod data_commands; // what a file holds, and cleaning it
mod labels; // labels mean classes by name
mod served; // what another server asks of an export
mod tokenizers; // each kind of vocabulary in each part that a model may play

// The cache.
mod cache; // keyed by what the teacher reads, and of one teacher alone
mod cache_commands; // inspect, verify, estimate, merge, export, gc
mod cache_damage; // files that are not as they were written
mod cache_forms; // forms in which answers are stored, and students that learn from each
mod cache_import; // answers of something else, and the mean of several teachers
mod cache_refresh; // what is stale is captured anew, and nothing else
mod cache_stops; // kills, other writers, bounds of memory

// What can go wrong, and what may not depend on chance.
mod autotune; // products chosen by timing, and the same choices once resumed
mod bad_input; // refused with the thing and the way out
mod determinism; // the same bytes whatever the threads, the folder, the time
mod full_disk; // no room left
mod resume; // a stop at any moment, and going on to the same bytes

// What people see.
mod bench; // figures of `bench` fit together; how fast anything is, no test says
mod bench_kernels; // a fault in one part of a GPU's checks leaves the others
mod estimate; // memory and time, told before they are taken
mod gpu; // what is said and refused on a GPU
mod help;
mod look; // event files, traces and plots of a run // `--help`, word for word

// The layout.
mod arrows; // which crate, which file may use which
mod imports; // who imports whom, read from the sources

// For the tests.
mod cache_tools; // what a cache holds, whether it is sound
#[path = "../student/nn/src/cuda/emulation/library.rs"]
mod emulated; // the emulated GPU's library
mod support; // a folder to work in, and the program run in it
