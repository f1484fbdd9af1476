//! The Dockerfile of a selection.

use velox_api::BuildSpec;

/// A Dockerfile that builds the binary from the velox.toml beside it, and from the velox.lock if there is one; `None` if
/// the target isn't Linux.
pub(super) fn dockerfile(spec: &BuildSpec, has_lock: bool) -> Option<String> {
    if spec.target.os != "linux" {
        return None;
    }
    let (files, names) = match has_lock {
        true => ("velox.toml velox.lock", "velox.toml, velox.lock"),
        false => ("velox.toml", "velox.toml"),
    };
    // The race detector links the C library of Alpine, which the image `vx` is based on.
    let (environment, image) = match spec.race {
        true => ("ENV CGO_ENABLED=1", "php:8.4-cli-alpine"),
        false => ("ENV CGO_ENABLED=0", "php:8.4-cli"),
    };
    Some(format!(
        "\
# Place this file beside {names}, your application and its .rr.yaml, then run `docker build -t app .`.
# The image `vx` is built from a clone of vx's repository: `docker build -t vx -f packaging/Dockerfile .`
FROM vx AS velox
COPY {files} ./
{environment}
RUN vx build -c velox.toml -o /usr/bin/

FROM --platform={target} {image}
COPY --from=velox /usr/bin/rr /usr/bin/rr
WORKDIR /app
COPY . .
CMD [\"rr\", \"serve\"]
",
        target = spec.target,
    ))
}

#[cfg(test)]
mod tests {
    use super::{super::selection::Selection, *};

    #[test]
    fn dockerfiles_are_for_linux() {
        let spec = |target: &str, race| {
            Selection { target: target.to_owned(), race, ..Selection::default() }.spec().0
        };
        let text = dockerfile(&spec("linux/arm64", false), true).unwrap_or_default();
        assert!(
            text.contains("COPY velox.toml velox.lock ./")
                && text.contains("FROM --platform=linux/arm64 php:"),
            "{text}"
        );
        let text = dockerfile(&spec("linux/amd64", true), false).unwrap_or_default();
        assert!(text.contains("COPY velox.toml ./") && text.contains("CGO_ENABLED=1"), "{text}");
        assert_eq!(dockerfile(&spec("darwin/arm64", false), false), None);
    }
}
