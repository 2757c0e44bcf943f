//! HTML: tags, comments, scripts and style sheets go, entities become what they stand for.

use html_escape::decode_html_entities;
use std::borrow::Cow;

/// Elements within a line, whose tags leave no space behind.
const INLINE: [&str; 32] = [
    "a", "abbr", "acronym", "b", "bdi", "bdo", "big", "cite", "code", "data", "del", "dfn", "em", "font", "i", "ins",
    "kbd", "mark", "q", "s", "samp", "small", "span", "strike", "strong", "sub", "sup", "time", "tt", "u", "var",
    "wbr",
];

/// Elements between lines: a space stands for each of their tags.
const BLOCK: [&str; 65] = [
    "address",
    "article",
    "aside",
    "audio",
    "blockquote",
    "body",
    "br",
    "button",
    "canvas",
    "caption",
    "center",
    "col",
    "colgroup",
    "dd",
    "details",
    "div",
    "dl",
    "dt",
    "fieldset",
    "figcaption",
    "figure",
    "footer",
    "form",
    "frame",
    "frameset",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "head",
    "header",
    "hr",
    "html",
    "iframe",
    "img",
    "input",
    "label",
    "legend",
    "li",
    "link",
    "main",
    "meta",
    "nav",
    "noscript",
    "object",
    "ol",
    "option",
    "p",
    "param",
    "picture",
    "pre",
    "section",
    "select",
    "source",
    "summary",
    "svg",
    "table",
    "tbody",
    "td",
    "th",
    "tr",
    "ul",
    "video",
];

/// Elements whose content is no text.
const CODE: [&str; 4] = ["script", "style", "template", "textarea"];

/// A text without HTML; `None` where it has none. What decoding brings to light is decoded again.
pub(super) fn apply(text: &str) -> Option<String> {
    let mut text = once(text)?;
    while let Some(next) = once(&text) {
        text = next;
    }
    Some(text)
}

/// Each change makes the text shorter, so this ends.
fn once(text: &str) -> Option<String> {
    let untagged = without_tags(text);
    let spelled = untagged.as_deref().unwrap_or(text);
    let decoded = decoded(spelled);
    match (decoded, untagged) {
        (Some(decoded), _) => Some(decoded),
        (None, untagged) => untagged,
    }
}

fn without_tags(text: &str) -> Option<String> {
    let mut out = String::new();
    let mut rest = text;
    let mut found = false;
    let mut unclosed = Unclosed::default();
    while let Some(at) = rest.find('<') {
        let (before, tag) = rest.split_at(at);
        out.push_str(before);
        match markup(tag, &mut unclosed) {
            Some(Markup { length, space }) => {
                found = true;
                // A tag at the end of a space leaves no second one.
                if space && !out.ends_with([' ', '\n']) {
                    out.push(' ');
                }
                rest = &tag[length..];
            }
            None => {
                out.push('<');
                rest = &tag[1..];
            }
        }
    }
    out.push_str(rest);
    found.then_some(out)
}

/// What has no end in the rest of a text, and is not looked for again: a text of unclosed comments would take the square of its
/// length.
#[derive(Default)]
struct Unclosed {
    comment: bool,
    code: [bool; CODE.len()],
}

/// What a text begins with.
struct Markup {
    length: usize,
    space: bool,
}

/// A tag, a comment or a declaration at the beginning. A bracket before anything else is one that somebody wrote: `x < y`.
fn markup(text: &str, unclosed: &mut Unclosed) -> Option<Markup> {
    if let Some(comment) = text.strip_prefix("<!--") {
        let end = if unclosed.comment { None } else { comment.find("-->") };
        unclosed.comment = end.is_none();
        return Some(Markup { length: 4 + end? + 3, space: false });
    }
    let inner = &text[1..];
    let closing = inner.starts_with('/');
    let name_start = usize::from(closing);
    let name: String = inner[name_start..]
        .chars()
        .take_while(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .take(12)
        .collect();
    if name.is_empty() {
        let doctype = inner.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("!doctype"));
        return doctype.then(|| inner.find('>')).flatten().map(|end| Markup { length: end + 2, space: false });
    }
    let end = tag_end(&inner[name_start + name.len()..])?;
    let length = 1 + name_start + name.len() + end;
    if INLINE.contains(&name.as_str()) {
        return Some(Markup { length, space: false });
    }
    if BLOCK.contains(&name.as_str()) {
        return Some(Markup { length, space: true });
    }
    if let Some(code) = CODE.iter().position(|code| *code == name) {
        let content = &text[length..];
        // Without an end only the tag goes: no text is lost to a tag that somebody merely mentions.
        let looked_for = !closing && !unclosed.code[code];
        let close = looked_for.then(|| find_closing(content, &name)).flatten();
        unclosed.code[code] |= looked_for && close.is_none();
        return Some(Markup { length: length + close.unwrap_or(0), space: true });
    }
    None
}

/// Where a tag ends, behind its bracket. Brackets within quoted values do not end it; one that opens, or words without a value,
/// show that it is none: `if a<b or c>d`.
fn tag_end(attributes: &str) -> Option<usize> {
    if !attributes.starts_with([' ', '\t', '\n', '\r', '/', '>']) {
        return None;
    }
    let mut quote = None;
    let mut value = false;
    for (at, byte) in attributes.bytes().enumerate() {
        match (quote, byte) {
            (Some(open), byte) if byte == open => quote = None,
            (Some(_), _) => {}
            // An apostrophe elsewhere opens nothing.
            (None, b'"' | b'\'') if value => quote = Some(byte),
            (None, b'>') => {
                let attributes = attributes[..at].trim_matches([' ', '\t', '\n', '\r', '/']);
                return (attributes.is_empty() || attributes.contains('=')).then_some(at + 1);
            }
            (None, b'<') => return None,
            _ => {}
        }
        value = byte == b'=' || value && byte == b' ';
    }
    None
}

/// The length up to and with the closing tag of this name.
fn find_closing(content: &str, name: &str) -> Option<usize> {
    let bytes = content.as_bytes();
    let wanted = format!("</{name}");
    let start = bytes.windows(wanted.len()).position(|part| part.eq_ignore_ascii_case(wanted.as_bytes()))?;
    Some(start + content[start..].find('>')? + 1)
}

/// Entities decoded, also those that have lost their ampersand to a space, as in some news corpora (`Russia #39;s`).
fn decoded(text: &str) -> Option<String> {
    let repaired = with_ampersands(text);
    let text = repaired.as_deref().unwrap_or(text);
    if !text.contains('&') {
        return None;
    }
    match decode_html_entities(text) {
        Cow::Owned(decoded) if decoded != text => Some(decoded),
        _ => None,
    }
}

/// ` #39;` as `&#39;`, ` quot;` as `&quot;`; `None` where there is nothing of the kind.
fn with_ampersands(text: &str) -> Option<String> {
    if !text.contains(';') {
        return None;
    }
    let mut out = String::new();
    let mut done = 0;
    for (at, _) in text.match_indices(' ') {
        let rest = &text[at + 1..];
        let digits = rest.strip_prefix('#').map_or(0, |rest| rest.bytes().take_while(u8::is_ascii_digit).count());
        let number = (2..=5).contains(&digits) && rest[1 + digits..].starts_with(';');
        // One that stands for nothing would only get its ampersand back.
        let stands = number && rest[1..=digits].parse().ok().and_then(char::from_u32).is_some_and(|c| !c.is_control());
        if stands || ["quot;", "lt;", "gt;", "nbsp;"].iter().any(|name| rest.starts_with(name)) {
            out.push_str(&text[done..at]);
            out.push('&');
            done = at + 1;
        }
    }
    (done > 0).then(|| out + &text[done..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, expected: &str) {
        assert_eq!(apply(text).as_deref().unwrap_or(text), expected, "{text}");
    }

    #[test]
    fn tags_go_and_their_texts_stay() {
        check("a <b>bold</b> word", "a bold word");
        check("one<br/>two<br>three", "one two three");
        check("<p class=\"x > y\">first</p><p>second</p>", " first second ");
        check("see <a href='http://x.org/?a=1&amp;b=2'>this</a>.", "see this.");
        check("a<!-- no <b> text -->b", "ab");
        check("<!DOCTYPE html><html>x</html>", " x ");
        check("a<script type=\"x\">if (a < b) {}</SCRIPT >b<style>p {}</style>", "a b ");
        check("a <script> is a tag", "a  is a tag");
        check("<script> a <style>b</style> <script> c <!-- d <!-- e", "  a   c <!-- d <!-- e");
        // Once 16 s.
        let many = "<script> a <!-- b ".repeat(60_000);
        assert_eq!(apply(&many).map(|text| text.len()), Some(many.len() - 60_000 * "<script>".len() + 1));
    }

    #[test]
    fn what_is_no_html_stays() {
        for text in [
            "x < y and y > z",
            "i <3 you",
            "if a<b or c>d",
            "<y and z>",
            "<- here ->",
            "a <b without an end",
            "R&D; AT&T",
            "<thing>",
            "a & b",
            "#39; 12;",
            "the amp; it was",
            "x #1; y",
        ] {
            assert_eq!(apply(text), None, "{text}");
        }
    }

    #[test]
    fn entities_are_decoded_until_none_is_left() {
        check("Tom &amp; Jerry &lt;3 &eacute;&#233;&#xE9;&nbsp;x", "Tom & Jerry <3 ééé\u{a0}x");
        check("AT&amp;amp;T", "AT&T");
        check("&lt;b&gt;bold&lt;/b&gt;", "bold");
        check("&amp;lt;br&amp;gt;", " ");
        check(
            "Russia #39;s Yukos, \\ #36;1.5 billion, said quot;no quot;",
            "Russia's Yukos, \\$1.5 billion, said\"no\"",
        );
    }

    proptest! {
        #[test]
        fn once_is_enough_and_no_text_panics(text in "([<>&;/=\"' #a-c0-9]|<b>|</p>|&amp;|&lt;|#39;|<script>|é|中){0,30}") {
            if let Some(cleaned) = apply(&text) {
                prop_assert_ne!(&cleaned, &text);
                prop_assert_eq!(apply(&cleaned), None);
            }
        }

        #[test]
        fn any_text_will_do(text in any::<String>()) {
            let _ = apply(&text);
        }
    }
}
