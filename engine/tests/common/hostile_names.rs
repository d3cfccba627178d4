//! Names that somebody with bad intentions, or bad luck, gives to logs.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part of this")]

/// Names that a log may have, however they look: they never become paths.
pub fn allowed() -> Vec<String> {
    let mut names: Vec<String> = [
        // Paths, and what shells, file systems and other systems make of a name.
        ".",
        "..",
        "...",
        "/",
        "//",
        "///",
        "./",
        "../",
        "../..",
        "../../etc/passwd",
        "/etc/passwd",
        "a/../b",
        "a/./b",
        "a//b",
        "/tmp/evil",
        "tmp/",
        "..\\..\\evil",
        "\\",
        "\\\\server\\share",
        "C:",
        "C:\\evil",
        "C:evil",
        "file:///etc/passwd",
        "~",
        "~root",
        "$HOME",
        "${HOME}",
        "$(id)",
        "`id`",
        ";id",
        "|id",
        "&",
        "&&",
        "||",
        "<",
        ">",
        "*",
        "?",
        "[a]",
        "{a,b}",
        "!",
        "#",
        "%",
        "%s%n",
        "%00",
        "%2e%2e%2f",
        "%2F",
        "-",
        "--",
        "-rf",
        "--help",
        "--json",
        "'",
        "\"",
        "''",
        "\"\"",
        " ",
        "  ",
        " a",
        "a ",
        "a b",
        "a.",
        ".a",
        ".hidden",
        "a:b",
        "a::$DATA",
        "con",
        "CON",
        "nul",
        "NUL.txt",
        "aux",
        "com1",
        "lpt1",
        "prn",
        "desktop.ini",
        // The store's own names, and those of its files.
        "root",
        "root.new",
        "lock",
        "readers",
        "segments",
        "segments/0000000000000001.journal",
        "0000000000000001.journal",
        "0000000000000002.slabs",
        "0000000000000003.free",
        "../root",
        "../lock",
        // One letter, several ways of writing it, several that look alike: each is a name of its own.
        "name",
        "NAME",
        "Name",
        "\u{e9}",
        "e\u{301}",
        "\u{c9}",
        "E\u{301}",
        "\u{fb01}",
        "fi",
        "\u{df}",
        "ss",
        "SS",
        "\u{130}",
        "i\u{307}",
        "\u{131}",
        "\u{212a}",
        "K",
        "\u{391}",
        "A",
        "\u{ff21}",
        "\u{2024}\u{2024}",
        "\u{ff0e}\u{ff0e}",
        "\u{2215}",
        "\u{ff0f}",
        "\u{2044}",
        // What is not seen, or turns text round.
        "\u{200b}",
        "\u{200d}",
        "\u{feff}",
        "\u{feff}name",
        "\u{ad}",
        "\u{a0}",
        "\u{2028}",
        "\u{2029}",
        "\u{202e}gol",
        "a\u{202e}b",
        "\u{2066}x",
        "\u{200f}",
        "\u{61c}",
        "\u{3164}",
        "\u{e0001}",
        "\u{fff9}",
        "\u{fffd}",
        "\u{fffe}",
        "\u{ffff}",
        "\u{10ffff}",
        "\u{e000}",
        "\u{1f4a9}",
        "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}",
        "Z\u{351}\u{36b}\u{343}",
        "\u{5d0}\u{5d1}",
        "\u{627}\u{644}",
        // What looks like an escape, or like a line of output.
        "\\u{1b}[2J",
        "\\x1b[31m",
        "\\n",
        "\\0",
        "^[",
        "[2J",
        "no damage found",
        "null",
        "true",
        "0",
        "-1",
        "18446744073709551616",
        "{\"name\":1}",
        "<script>",
        "a,b",
        "a;b",
        "a=b",
        "@",
        "+",
        "(",
        ")",
        "log start end",
    ]
    .into_iter()
    .map(str::to_owned)
    .collect();
    names.push("x".repeat(255));
    names.push("/".repeat(255));
    names.push("../".repeat(85));
    names.push("\u{20ac}".repeat(85));
    names.push(format!("{}x", "\u{e9}".repeat(127)));
    names
}

/// Text that no log may have for a name.
pub fn refused() -> Vec<String> {
    let mut names: Vec<String> = vec![
        String::new(),
        "x".repeat(256),
        "\u{e9}".repeat(128),
        "x".repeat(100_000),
    ];
    // Control characters, alone and within: both ranges of them, and the one between.
    for code in (0..0x20).chain(0x7f..0xa0) {
        let character = char::from(code);
        names.push(character.to_string());
        names.push(format!("a{character}b"));
    }
    names.push("\u{1b}[2J\u{1b}[1;1Howned".to_owned());
    names.push("\u{1b}]0;title\u{7}".to_owned());
    names.push("\u{9b}31m".to_owned());
    names.push("a\nno damage found".to_owned());
    names
}

/// Bytes that are no text at all.
pub const NOT_TEXT: [&[u8]; 10] = [
    b"\xff",
    b"a\xff",
    b"\xc0\xaf",
    b"\xc0\x80",
    b"\xe0\x80\xaf",
    b"\xed\xa0\x80",
    b"\xf8\x88\x80\x80\x80",
    b"\x80",
    b"ok\xc3",
    b"\xf4\x90\x80\x80",
];
