#![no_main]

libfuzzer_sys::fuzz_target!(init: rpc_fuzz::write_seeds("topics"), |data: &[u8]| rpc_core::__fuzz::topics(data));
