//! Targets and places in a text.
use velox_manifest::{GoTarget, SourceFile, parse_target};

#[test]
fn a_target_is_a_pair_that_go_compiles_for() {
    assert_eq!(parse_target("linux/arm64"), Ok(GoTarget { os: "linux".into(), arch: "arm64".into() }));
    assert_eq!(
        parse_target("linus/arm64").unwrap_err(),
        "unknown operating system `linus`: did you mean `linux`?"
    );
    assert_eq!(
        parse_target("darwin/s390x").unwrap_err(),
        "unknown architecture for darwin `s390x`: known are amd64, arm64"
    );
    assert!(parse_target("linux").is_err());
}

#[test]
fn columns_count_characters() {
    let source = SourceFile { name: "velox.toml".into(), text: "é = 1\nö = 2".into() };
    assert_eq!(source.line_column(0), (1, 1));
    assert_eq!(source.line_column(2), (1, 2));
    assert_eq!(source.line_column(7), (2, 1));
    assert_eq!(source.line_column(8), (2, 1));
    assert_eq!(source.line_column(99), (2, 6));
}
