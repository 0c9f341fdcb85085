//! Lists of images in files: one on each line, with what stands behind `#` left out.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::oci::ImageRef;
use crate::oci::image::InvalidImageRef;

/// Why a list cannot be used.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum InputError {
    /// It cannot be read.
    #[error("The list of images {} cannot be read: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    /// A line of it is no image.
    #[error("{}:{line}:{column}: `{text}` is not an image: {reason}", path.display())]
    Line { path: PathBuf, line: usize, column: usize, text: String, reason: InvalidImageRef },
    /// There is nothing in it.
    #[error("No image is named: give some, or a file with `-f` that has one on each line")]
    Empty,
}

/// The images that a file names; `-` is the standard input.
pub(super) fn images_in(path: &Path) -> Result<Vec<ImageRef>, InputError> {
    let read = if path == Path::new("-") {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        fs::read_to_string(path)
    };
    let text = read.map_err(|source| InputError::Unreadable { path: path.to_owned(), source })?;
    parse(&text, path)
}

fn parse(text: &str, path: &Path) -> Result<Vec<ImageRef>, InputError> {
    let mut images = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let image = line.split('#').next().unwrap_or_default();
        let (indent, image) = (image.len() - image.trim_start().len(), image.trim());
        if image.is_empty() {
            continue;
        }
        let parsed = image.parse().map_err(|reason| InputError::Line {
            path: path.to_owned(),
            line: number,
            column: indent + 1,
            text: image.chars().filter(|letter| !letter.is_control()).take(128).collect(),
            reason,
        });
        images.push(parsed?);
    }
    Ok(images)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_comments_and_empty_lines() {
        let images = parse("# base\nnginx\n\n  redis:7 # cache\r\n", Path::new("list")).unwrap();
        assert_eq!(
            images.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["docker.io/library/nginx:latest", "docker.io/library/redis:7"]
        );
    }

    #[test]
    fn a_line_that_is_no_image_is_named_by_its_place() {
        let error = parse("nginx\n  UPPER/case\n", Path::new("list")).unwrap_err().to_string();
        assert!(error.starts_with("list:2:3: `UPPER/case` is not an image: "), "{error}");
    }
}
