//! URLs and e-mail addresses: a token stands for each, since no model learns from what one of them spells.

use linkify::{LinkFinder, LinkKind};

/// What stands for them; where there is none they stay.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Links {
    /// For a URL, with its scheme or from `www.` on.
    pub url: Option<String>,
    /// For an e-mail address.
    pub email: Option<String>,
}

impl Links {
    /// Whether a token would itself be taken for what it stands for.
    pub fn is_link(token: &str) -> bool {
        !finder().links(token).filter(|link| wanted(link.kind(), link.as_str())).collect::<Vec<_>>().is_empty()
    }

    pub(super) fn apply(&self, text: &str) -> Option<String> {
        if !(text.contains("://") || text.contains('@') || text.contains("www.") || text.contains("WWW.")) {
            return None;
        }
        let mut out = String::new();
        let mut done = 0;
        for link in finder().links(text) {
            let token = match link.kind() {
                LinkKind::Email => &self.email,
                _ => &self.url,
            };
            let Some(token) = token.as_ref().filter(|_| wanted(link.kind(), link.as_str())) else { continue };
            out.push_str(&text[done..link.start()]);
            out.push_str(token);
            done = link.end();
        }
        (done > 0).then(|| out + &text[done..])
    }
}

fn finder() -> LinkFinder {
    let mut finder = LinkFinder::new();
    // ASCII alone: a URL within Chinese ends where Chinese goes on.
    finder.url_must_have_scheme(false).url_can_be_iri(false);
    finder
}

/// Without a scheme, anything with a dot in it might be a host (`end.Next`), so it takes `www.`.
fn wanted(kind: &LinkKind, link: &str) -> bool {
    *kind == LinkKind::Email
        || link.contains("://")
        || link.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("www."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn links() -> Links {
        Links { url: Some("[URL]".to_owned()), email: Some("[EMAIL]".to_owned()) }
    }

    #[test]
    fn tokens_stand_for_links() {
        for (text, expected) in [
            ("see https://a.org/x?y=1#z.", "see [URL]."),
            ("(www.example.com/a) or HTTP://b.de", "([URL]) or [URL]"),
            ("write to a.b+c@example.co.uk, please", "write to [EMAIL], please"),
            ("请看https://a.cn/x，谢谢", "请看[URL]，谢谢"),
        ] {
            assert_eq!(links().apply(text).as_deref(), Some(expected), "{text}");
        }
        for text in ["the end.Next one", "@user said 3:1", "a@b", "e.g. this", "://"] {
            assert_eq!(links().apply(text), None, "{text}");
        }
        let urls = Links { url: Some("[URL]".to_owned()), email: None };
        assert_eq!(urls.apply("a@b.org or http://b.org").as_deref(), Some("a@b.org or [URL]"));
    }

    #[test]
    fn a_token_may_not_be_a_link() {
        assert!(Links::is_link("http://x.org") && Links::is_link("a@b.org"));
        assert!(!Links::is_link("[URL]") && !Links::is_link("url"));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(http://|www\\.|@|\\.|a|b\\.org|中|é| ){0,12}") {
            let _ = links().apply(&text);
        }
    }
}
