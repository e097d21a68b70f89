//! The macro's own interface: what it says about mistakes, and what it has to accept.
//!
//! `TRYBUILD=overwrite cargo test -p rpc-ui` writes the messages anew; read them as a user would.

#[test]
fn mistakes_are_explained_and_everything_else_is_accepted() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("fail/*.rs");
    cases.pass("pass/*.rs");
}
