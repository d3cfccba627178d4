//! Promise: the workspace keeps its own rules, as far as a machine can check them: lengths of files and functions, no
//! leftovers, modules that import only what stands below them, documents that know every subcommand.
//!
//! The rules are functions over text, each shown to catch a planted violation; one test runs them over the workspace.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Lines of code of a file, without comments, blank lines and its tests.
const FILE_LINES_MAX: usize = 600;
/// Lines of a file that holds nothing but tests.
const TEST_FILE_LINES_MAX: usize = 800;
/// Lines of a function, from its name to its closing brace. Seventy is what to aim at; what the formatter makes of a
/// few long lines is not worth a quarrel.
const FUNCTION_LINES_MAX: usize = 90;
/// The same in files of tests, where a list of cases may be long.
const TEST_FUNCTION_LINES_MAX: usize = 120;

/// What must not be left behind. Put together here, so that this file does not catch itself.
fn leftovers() -> [String; 5] {
    let call = |name: &str| format!("{name}!(");
    [
        call("todo"),
        call("dbg"),
        call("unimplemented"),
        ["FIX", "ME"].concat(),
        ["X", "XX"].concat(),
    ]
}

/// Modules of the engine and what each may import. A module that is not listed may import anything: those are the ones
/// that share the open store, and the public face.
const ENGINE_IMPORTS: [(&str, &[&str]); 32] = [
    ("sys", &[]),
    ("atomics", &["sys"]),
    ("clock", &[]),
    ("choices", &["atomics"]),
    ("few", &[]),
    ("number_map", &[]),
    ("error", &[]),
    ("rules", &[]),
    ("pins", &["atomics", "catalog", "log"]),
    ("publication", &["atomics"]),
    ("closing", &["atomics"]),
    ("disk", &["atomics", "sys"]),
    ("reader_table", &["disk"]),
    // A chunk gives its memory back to the pool it came from; the pool makes chunks.
    ("region", &["atomics", "error", "sys", "tail"]),
    ("tail", &["atomics", "region", "sys"]),
    ("slab", &["atomics", "disk", "rules", "segment", "sys"]),
    ("tree", &["atomics", "rules", "slab", "sys"]),
    ("segment", &["atomics", "disk", "error", "rules", "sys"]),
    ("root_file", &["disk", "error", "rules", "sys"]),
    (
        "journal",
        &["atomics", "disk", "error", "options", "rules", "segment", "sys"],
    ),
    ("constraints", &["error"]),
    ("formats", &["error"]),
    ("keys", &["error", "region", "slab", "sys", "tree"]),
    (
        "log",
        &[
            "atomics",
            "choices",
            "constraints",
            "few",
            "keys",
            "region",
            "slab",
            "tree",
        ],
    ),
    (
        "listed",
        &[
            "error",
            "keys",
            "number_map",
            "rules",
            "segment",
            "slab",
            "source",
            "tree",
        ],
    ),
    ("dormant", &["error", "listed", "log", "slab", "source", "tree"]),
    (
        "catalog",
        &["dormant", "error", "listed", "log", "number_map", "source"],
    ),
    ("parts", &["catalog", "error", "log"]),
    ("message", &["error", "region", "slab", "sys"]),
    ("slow_reader", &["pins"]),
    ("prefetch", &["sys"]),
    (
        "options",
        &[
            "clock",
            "disk",
            "error",
            "formats",
            "prefetch",
            "slab",
            "slow_reader",
            "store",
        ],
    ),
];

/// Modules that do not know the open store or the face above it, and so could be taken out and tested alone.
const FACE: [&str; 5] = ["store", "writer", "cursor", "snapshot", "transaction"];

/// Modules of the core, which may know everything below but not the face. `readers` opens what the face opens, and is
/// not among them.
const CORE_WITHOUT_FACE: [&str; 8] = [
    "background",
    "checkpoint",
    "core",
    "counters",
    "flush",
    "lost",
    "memory",
    "recover",
];

/// What `segment-format` and `tools` may not name, and why.
const FORMAT_BANNED: [(&str, &str); 8] = [
    ("std::fs", "the format opens no file"),
    ("std::io", "the format does no I/O"),
    ("std::net", "the format does no I/O"),
    ("std::path", "the format knows no path"),
    ("std::process", "the format starts nothing"),
    ("std::thread", "the format runs where it is called"),
    ("std::time", "the format has no clock"),
    ("unsafe ", "the format has no unsafe code"),
];
const TOOLS_BANNED: [(&str, &str); 3] = [
    ("unsafe ", "the tool opens stores by copying"),
    (
        "std::fs::write",
        "the tool writes through the store, or through `disk` when it repairs",
    ),
    ("set_len", "the tool never cuts a file"),
];

/// Everything up to the unit tests at the end of a file.
fn without_tests(text: &str) -> &str {
    let heads = [
        "\n#[cfg(test)]\nmod tests {",
        "\n#[cfg(test)]\n#[cfg(not(loom))]\nmod tests {",
    ];
    let end = heads.iter().find_map(|head| text.find(head));
    text.get(..end.unwrap_or(text.len())).unwrap_or(text)
}

fn is_code(line: &str) -> bool {
    let line = line.trim_start();
    !line.is_empty() && !line.starts_with("//")
}

fn file_length(text: &str, limit: usize) -> Option<String> {
    let lines = without_tests(text).lines().filter(|line| is_code(line)).count();
    (lines > limit).then(|| format!("{lines} lines of code, the limit is {limit}"))
}

fn function_name(line: &str) -> Option<&str> {
    let mut words = line.trim_start().split(' ').skip_while(|word| {
        matches!(*word, "pub" | "const" | "async" | "unsafe" | "extern" | "\"C\"") || word.starts_with("pub(")
    });
    if words.next() != Some("fn") {
        return None;
    }
    words.next()?.split(['(', '<']).next()
}

/// Functions that are too long. Relies on the formatter: a function ends at the brace that stands below its beginning.
fn long_functions(text: &str, limit: usize) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let indentation = line.len() - line.trim_start().len();
        let closing = format!("{}}}", " ".repeat(indentation));
        let rest = &lines[at..];
        // A declaration without a body ends at a semicolon, a body on one line at its own brace.
        let head = rest
            .iter()
            .position(|line| line.ends_with('{') || line.ends_with(';') || line.ends_with('}'));
        if !head.is_some_and(|head| rest[head].ends_with('{')) {
            continue;
        }
        let length = rest
            .iter()
            .position(|line| **line == closing)
            .map_or(rest.len(), |end| end + 1);
        if length > limit {
            found.push(format!(
                "line {}: fn {name} has {length} lines, the limit is {limit}",
                at + 1
            ));
        }
    }
    found
}

fn leftovers_in(text: &str) -> Vec<String> {
    let lines = text.lines().enumerate();
    let found = |(at, line): (usize, &str)| {
        let left = leftovers()
            .into_iter()
            .find(|left| line.contains(left.as_str()))?;
        Some(format!("line {}: {left}", at + 1))
    };
    lines.filter_map(found).collect()
}

fn banned_in(text: &str, banned: &[(&str, &str)]) -> Vec<String> {
    let lines = without_tests(text)
        .lines()
        .enumerate()
        .filter(|(_, line)| is_code(line));
    let found = |(at, line): (usize, &str)| {
        let (name, reason) = banned.iter().find(|(name, _)| line.contains(name))?;
        Some(format!("line {}: {name}: {reason}", at + 1))
    };
    lines.filter_map(found).collect()
}

/// Modules of its own crate that a file names, outside its tests and its comments.
fn imports(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in without_tests(text).lines().filter(|line| is_code(line)) {
        for part in line.split("crate::").skip(1) {
            let name = |text: &str| {
                text.split(|c: char| c != '_' && !c.is_ascii_alphanumeric())
                    .next()
                    .map(str::to_owned)
            };
            match part.strip_prefix('{').and_then(|list| list.split('}').next()) {
                Some(list) => found.extend(list.split(", ").filter_map(name)),
                None => found.extend(name(part)),
            }
        }
    }
    found.retain(|name| name.starts_with(|c: char| c.is_ascii_lowercase()));
    found
}

/// What a module of the engine imports and may not.
fn wrong_imports(module: &str, imported: &BTreeSet<String>) -> Vec<String> {
    let listed = ENGINE_IMPORTS
        .iter()
        .find(|(name, _)| *name == module)
        .map(|(_, allowed)| *allowed);
    let allowed = |name: &str| match listed {
        Some(allowed) => allowed.contains(&name) || name == module,
        None => !(CORE_WITHOUT_FACE.contains(&module) && FACE.contains(&name)),
    };
    imported
        .iter()
        .filter(|name| !allowed(name))
        .map(|name| format!("{module} imports {name}"))
        .collect()
}

/// The module of the engine that a file belongs to: its folder or its own name.
fn module_of(path: &Path) -> String {
    let first = path
        .components()
        .next()
        .map(|part| part.as_os_str().to_string_lossy().into_owned());
    first.unwrap_or_default().trim_end_matches(".rs").to_owned()
}

/// Subcommands in the help text of the tool.
fn subcommands(help: &str) -> Vec<String> {
    let listed = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty());
    let name = |line: &str| {
        let indented = line.strip_prefix("  ")?;
        let first = indented.split(' ').next().filter(|word| !word.is_empty())?;
        (first != "help").then(|| first.to_owned())
    };
    listed.filter_map(name).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_path_buf()
}

fn collect(directory: &Path, found: &mut BTreeMap<PathBuf, String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                collect(&path, found);
            }
        } else if name.ends_with(".rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            found.insert(path.strip_prefix(root()).unwrap().to_path_buf(), text);
        }
    }
}

fn check_file(path: &Path, text: &str) -> Vec<String> {
    let tests = path.components().any(|part| part.as_os_str() == "tests") || path.ends_with("tests.rs");
    let mut found = leftovers_in(text);
    found.extend(file_length(
        text,
        if tests {
            TEST_FILE_LINES_MAX
        } else {
            FILE_LINES_MAX
        },
    ));
    let function_lines_max = if tests {
        TEST_FUNCTION_LINES_MAX
    } else {
        FUNCTION_LINES_MAX
    };
    found.extend(long_functions(text, function_lines_max));
    if tests {
        return found;
    }
    if let Ok(inside) = path.strip_prefix("engine/src") {
        found.extend(wrong_imports(&module_of(inside), &imports(text)));
    } else if path.starts_with("segment-format/src") {
        found.extend(banned_in(text, &FORMAT_BANNED));
    } else if path.starts_with("tools/src") {
        found.extend(banned_in(text, &TOOLS_BANNED));
    }
    found
}

#[test]
fn the_workspace_keeps_its_rules() {
    let mut files = BTreeMap::new();
    for directory in ["segment-format", "engine", "tools", "fuzz", "benches"] {
        let directory = root().join(directory);
        if directory.is_dir() {
            collect(&directory, &mut files);
        }
    }
    assert!(files.len() > 50, "the workspace has files");
    let mut report = String::new();
    for (path, text) in &files {
        for violation in check_file(path, text) {
            writeln!(report, "{}: {violation}", path.display()).unwrap();
        }
    }
    assert!(report.is_empty(), "\n{report}");
}

#[test]
fn the_readme_names_every_subcommand() {
    let output = Command::new(env!("CARGO_BIN_EXE_lanterman"))
        .arg("--help")
        .output()
        .unwrap();
    let commands = subcommands(&String::from_utf8_lossy(&output.stdout));
    assert!(
        commands.iter().any(|command| command == "append"),
        "the help lists its commands: {commands:?}"
    );
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    for command in commands {
        assert!(
            readme.contains(&format!("`lanterman {command} ")),
            "README.md does not speak of {command}"
        );
    }
}

#[test]
fn the_documents_that_are_promised_are_there() {
    for name in [
        "README.md",
        "ARCHITECTURE.md",
        "SPEC.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "LICENSE",
        "check",
    ] {
        assert!(root().join(name).is_file(), "{name} is missing");
    }
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    for link in readme
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
    {
        let outside = link.starts_with("https://");
        assert!(
            outside || root().join(link).exists(),
            "README.md points to {link}, which is not there"
        );
    }
}

#[test]
fn every_module_in_the_table_of_imports_exists() {
    let source = root().join("engine/src");
    let names = ENGINE_IMPORTS
        .iter()
        .map(|(name, _)| *name)
        .chain(FACE)
        .chain(CORE_WITHOUT_FACE);
    for name in names {
        let there = source.join(format!("{name}.rs")).is_file() || source.join(name).is_dir();
        assert!(there, "the engine has no module {name}");
    }
}

#[test]
fn a_file_that_is_too_long_is_caught_and_its_comments_and_tests_do_not_count() {
    let text =
        "let a = 1;\n".repeat(5) + "\n// why\n" + "#[cfg(test)]\nmod tests {\n" + &"x\n".repeat(9) + "}\n";
    assert_eq!(file_length(&text, 5), None);
    assert_eq!(
        file_length(&text, 4),
        Some("5 lines of code, the limit is 4".to_owned())
    );
}

#[test]
fn a_function_that_is_too_long_is_caught_by_its_name() {
    let text = "impl A {\n    pub(crate) const fn long<T>(\n        a: T,\n    ) {\n        if a {\n        }\n    }\n\n    fn short() {}\n\
                \n    fn declared();\n}\n\nfn other() {\n}\n";
    assert!(long_functions(text, 6).is_empty());
    assert_eq!(
        long_functions(text, 5),
        ["line 2: fn long has 6 lines, the limit is 5"]
    );
    assert_eq!(long_functions(text, 1).len(), 2);
}

#[test]
fn leftovers_are_caught_in_code_and_in_comments() {
    for left in leftovers() {
        assert_eq!(
            leftovers_in(&format!("fn a() {{\n    {left});\n}}\n")),
            [format!("line 2: {left}")]
        );
    }
    assert!(leftovers_in("// nothing is left to do here\n").is_empty());
}

#[test]
fn an_import_from_above_is_caught_in_every_spelling() {
    let text = "use crate::store::Store;\nuse crate::{error, journal};\n// use crate::cursor::Cursor;\n\
                fn a(b: &crate::writer::Writer) {}\n#[cfg(test)]\nmod tests {\n    use crate::snapshot::Log;\n}\n";
    let found = imports(text);
    assert_eq!(
        found.iter().map(String::as_str).collect::<Vec<_>>(),
        ["error", "journal", "store", "writer"]
    );
    assert_eq!(
        wrong_imports("journal", &found),
        ["journal imports store", "journal imports writer"]
    );
    assert_eq!(
        wrong_imports("flush", &found),
        ["flush imports store", "flush imports writer"]
    );
    assert!(wrong_imports("snapshot", &found).is_empty());
}

#[test]
fn a_format_that_opens_files_and_a_tool_that_cuts_them_are_caught() {
    let opens = "// std::fs is not for us\nuse std::fs::File;\n";
    assert_eq!(
        banned_in(opens, &FORMAT_BANNED),
        ["line 2: std::fs: the format opens no file"]
    );
    assert_eq!(banned_in("file.set_len(0)?;\n", &TOOLS_BANNED).len(), 1);
}

#[test]
fn subcommands_are_found_in_a_help_text() {
    let help = "About\n\nUsage: lanterman <COMMAND>\n\nCommands:\n  append  Appends\n          and more\n  logs    Lists\n  \
                help    Print this\n\nOptions:\n  -h, --help\n";
    assert_eq!(subcommands(help), ["append", "logs"]);
}
