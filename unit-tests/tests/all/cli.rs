//! The command line: how words are taken apart, what they are planned into, what users see.

mod arguments;
mod commands;
mod looking;
mod plan;
mod running;
mod shown;
