//! Tests.
#[test] fn t(){}
