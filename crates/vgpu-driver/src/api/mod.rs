//! The exported functions, a file a topic.

mod attributes;
mod capture;
mod contexts;
mod copies;
mod devices;
mod errors;
pub(crate) mod event;
mod fills;
mod functions;
mod graphs;
mod launches;
mod libraries;
mod links;
mod memory;
pub(crate) mod module;
mod nodes;
mod occupancy;
mod peers;
mod pointers;
mod pools;
mod proc_address;
mod streams;
mod tensor_maps;
mod unsupported;
mod values;

#[cfg(test)]
mod tests;
