use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn row(text: &str) -> Row {
    Row { text: text.to_owned(), text_b: None, label: Some("x".to_owned()), line: 1 }
}

/// What a way makes of a text, for many numbers.
fn of(vary: &dyn Vary, text: &str) -> BTreeSet<String> {
    let cutter = WordCutter::default();
    let text = Text::new(text, &cutter);
    (0..200).filter_map(|copy| vary.vary(&text, &mut Draw::new(7, &Key::default(), "test", copy))).collect()
}

fn set(texts: &[&str]) -> BTreeSet<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn words_are_exchanged_and_all_else_stays() {
    assert_eq!(
        of(&Swap { rate: 0.1 }, "Where's my NEW card?"),
        set(&[
            "my Where's NEW card?",
            "NEW my Where's card?",
            "card my NEW Where's?",
            "Where's NEW my card?",
            "Where's card NEW my?",
            "Where's my card NEW?"
        ])
    );
    assert_eq!(of(&Swap { rate: 0.1 }, "card?"), set(&[]));
    assert_eq!(of(&Swap { rate: 0.1 }, "我 的"), set(&["的 我"]));
}

#[test]
fn a_word_is_left_out_with_its_space() {
    assert_eq!(
        of(&Delete { rate: 0.1 }, "Is it  lost, or not?"),
        set(&["it  lost, or not?", "Is  lost, or not?", "Is it, or not?", "Is it  lost, not?", "Is it  lost, or?"])
    );
    assert_eq!(of(&Delete { rate: 0.1 }, "我的卡"), set(&["的卡", "我卡", "我的"]));
    assert_eq!(of(&Delete { rate: 0.9 }, "my card"), set(&[]), "never all of them");
}

#[test]
fn words_of_the_data_are_put_in() {
    assert_eq!(of(&Insert { rate: 0.1, words: &["now"] }, "my card?"), set(&["now my card?", "my now card?"]));
    assert_eq!(of(&Insert { rate: 0.1, words: &["不"] }, "我的卡"), set(&["不我的卡", "我不的卡", "我的不卡"]));
    assert_eq!(of(&Replace { rate: 0.9, words: &["now"] }, "my card?"), set(&["now card?", "my now?"]));
    assert_eq!(of(&Replace { rate: 0.9, words: &["now"] }, "card?"), set(&[]));
    let mask = Mask { rate: 0.1, token: "[MASK]".to_owned() };
    assert_eq!(of(&mask, "my card?"), set(&["[MASK] card?", "my [MASK]?"]));
    assert_eq!(of(&mask, "card"), set(&[]));
}

#[test]
fn parts_of_texts() {
    assert_eq!(of(&Fragment, "Is it lost, or"), set(&["Is it", "it lost", "lost, or", "Is it lost", "it lost, or"]));
    assert_eq!(of(&Fragment, "my card"), set(&[]));
    assert_eq!(of(&Sentences, "It is lost. Or not! "), set(&["It is lost. Or not!", "Or not! It is lost."]));
    assert_eq!(of(&Sentences, "It is lost"), set(&[]));
    let cutter = WordCutter::default();
    let recombine = Recombine { texts: &["who took the money?"], cutter: &cutter };
    assert_eq!(
        of(&recombine, "Is my card lost"),
        set(&["Is took the money?", "Is my the money?", "Is my card money?"])
    );
    assert_eq!(of(&recombine, "card"), set(&[]));
    let recombine = Recombine { texts: &["在哪里"], cutter: &cutter };
    assert_eq!(of(&recombine, "我的卡"), set(&["我哪里", "我的里"]));
}

#[test]
fn mistakes_are_in_words_that_stay_recognisable() {
    for text in of(&Characters { rate: 0.1 }, "my card is lost") {
        let words: Vec<&str> = text.split(' ').collect();
        assert!(words.len() == 4 && words[0] == "my" && words[2] == "is", "{text}");
        assert!(words[1].starts_with('c') && words[3].starts_with('l'), "{text}");
        assert!((words[1] == "card") != (words[3] == "lost") || text == "my card is lost", "{text}");
    }
    assert!(of(&Characters { rate: 0.1 }, "my card").is_superset(&set(&["my crad", "my cad", "my carrd"])));
    assert!(of(&Keyboard { rate: 0.1 }, "my CARD").is_superset(&set(&["my CQRD", "my VARD"])));
    assert_eq!(of(&Keyboard { rate: 0.1 }, "öäüß my is"), set(&[]));
    assert!(of(&Ocr { rate: 0.1 }, "my modem").is_superset(&set(&["my rnodem", "my m0dem", "my moclem"])));
    assert_eq!(of(&Ocr { rate: 0.1 }, "我的卡片 a"), set(&[]));
}

#[test]
fn synonyms_are_those_of_word_net_or_of_a_list() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
    write(
        "data.noun",
        "  1 This software and database is being provided to you\n\
         02958343 06 n 05 car 0 auto 0 automobile 0 machine 6 motorcar 0 002 @ 03791235 n 0000 | a motor vehicle\n\
         02959942 06 n 02 car 1 railway_car 0 001 @ 04576211 n 0000 | a wheeled vehicle\n",
    );
    write("data.adj", "00001740 00 a 02 quick(a) 0 fast 0 001 = 05200169 n 0101 | at speed\n");
    let word_net = Synonyms::read(folder.path()).expect("WordNet");
    let all = SynonymReplacement { rate: 0.1, synonyms: &word_net };
    assert_eq!(
        of(&all, "My Car!"),
        set(&["My Auto!", "My Automobile!", "My Machine!", "My Motorcar!", "My Railway car!"])
    );
    assert_eq!(of(&all, "so QUICK"), set(&["so FAST"]));
    assert_eq!(of(&all, "so slow"), set(&[]));

    write("list.tsv", "lost\tgone\tmissing\n\n卡\t卡片\n");
    let list = Synonyms::read(&folder.path().join("list.tsv")).expect("a list");
    let all = SynonymReplacement { rate: 0.9, synonyms: &list };
    assert_eq!(of(&all, "Lost, I am"), set(&["Gone, I am", "Missing, I am"]));
    assert_eq!(of(&all, "我的卡"), set(&["我的卡片"]));

    let refused = |name: &str, text: &str, expected: &str| {
        write(name, text);
        let error = Synonyms::read(&folder.path().join(name)).expect_err(name).to_string();
        assert!(error.contains(expected) && error.contains(name), "{error}");
    };
    refused("bad.tsv", "lost\tgone\nlost gone\n", "line 2");
    refused("none.tsv", "\n", "has no synonyms");
    write("data.verb", "00001740 29 v zz breathe 0\n");
    let error = Synonyms::read(folder.path()).expect_err("no WordNet").to_string();
    assert!(error.contains("data.verb, line 1"), "{error}");
    let empty = tempfile::tempdir().expect("a folder");
    let error = Synonyms::read(empty.path()).expect_err("no WordNet").to_string();
    assert!(error.contains("none of WordNet's"), "{error}");
}

#[test]
fn phrases_of_a_group_stand_for_each_other() {
    let group = |phrases: &[&str]| phrases.iter().map(|phrase| (*phrase).to_owned()).collect();
    // Words are those between Unicode word boundaries: `can't` is one.
    assert_eq!(of(&Rules(vec![group(&["can", "may"]), group(&["I", "we"])]), "I'm here, can't bake"), set(&[]));
    let rules = Rules(vec![group(&["I want", "I would like", "give me"]), group(&["card"])]);
    assert_eq!(of(&rules, "Say, i want a card"), set(&["Say, I would like a card", "Say, give me a card"]));
    assert_eq!(of(&rules, "Give me a card"), set(&["I want a card", "I would like a card"]));
    assert_eq!(of(&rules, "I wanted a car"), set(&[]), "words are whole");
    assert_eq!(of(&Rules(vec![group(&["我要", "给我"])]), "我要卡"), set(&["给我卡"]));
}

#[test]
fn templates_are_filled_in_all_ways_or_in_some() {
    let read = |json: &str| serde_json::from_str::<Templates>(json).expect("templates");
    let cities = r#"{"templates": ["{city} to {city}", "a {{brace}}"], "slots": {"city": ["Rome", "Oslo"]}}"#;
    let all = ["Rome to Rome", "Oslo to Rome", "Rome to Oslo", "Oslo to Oslo", "a {brace}"];
    assert_eq!(read(cities).fill(5, 1), Ok(all.map(str::to_owned).to_vec()));
    let some = read(cities).fill(3, 1).expect("some");
    assert!(some.len() == 3 && some.iter().all(|text| all.contains(&&**text)), "{some:?}");
    assert!((2..20).any(|seed| read(cities).fill(3, seed) != read(cities).fill(3, 1)));
    let many = r#"{"templates": ["{a}{a}{a}{a}{a}{a}{a}{a}{a}{a}{a}{a}{a}{a}{a}{a}{a}{a}{a}{a}{a}{a}{a}{a}{a}{a}{a}{a}{a}{a}{a}{a}{a}{a}"],
                   "slots": {"a": ["1", "2", "3", "4"]}}"#;
    assert_eq!(read(many).fill(10, 1).map(|texts| texts.len()), Ok(10));
    for (json, expected) in [
        (r#"{"templates": []}"#, "there are no templates"),
        (r#"{"templates": ["to {town}"], "slots": {"city": ["Rome"]}}"#, "a slot `town`, which is none of `city`"),
        (r#"{"templates": ["to {city}"], "slots": {"city": []}}"#, "slot `city` has nothing"),
        (r#"{"templates": ["to {city"], "slots": {"city": ["Rome"]}}"#, "never closed"),
        (r#"{"templates": ["to city}"], "slots": {"city": ["Rome"]}}"#, "never closed"),
    ] {
        let error = read(json).fill(9, 1).expect_err(json).to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn chinese_words_are_those_of_a_dictionary() {
    let cutter = WordCutter::with_dictionary("信用卡 100 n\n我的 100 r\n".as_bytes()).expect("a dictionary");
    let text = Text::new("我的信用卡, please", &cutter);
    let words: Vec<&str> = (0..text.len()).map(|number| text.word(number)).collect();
    assert_eq!(words, ["我的", "信用卡", "please"]);
    assert_eq!(Text::new("我的", &WordCutter::default()).len(), 2);
}

#[test]
fn variants_are_new_texts_and_tell_where_they_are_from() {
    let rows = [row("my card"), row("card my"), Row { text_b: Some("is lost".to_owned()), ..row("the card") }];
    let known = [row("lost is my")];
    let swap = Swap { rate: 0.1 };
    let ways = [Way { name: "swap", copies: 20, vary: [&swap, &swap] }];
    let mut all = Vec::new();
    augment(&rows, &[&known], &ways, &WordCutter::default(), 3, |variant| all.push(variant));
    // Both of the single texts have the other one alone, which is there.
    let texts: BTreeSet<_> = all.iter().map(|found| (found.row.text.as_str(), found.row.text_b.as_deref())).collect();
    assert_eq!(texts, [("card the", Some("is lost")), ("the card", Some("lost is"))].into());
    assert!(all.len() == 2 && all.iter().all(|found| (found.origin, found.way) == (2, "swap")), "{all:?}");
    assert!(all.iter().all(|found| found.row.label.as_deref() == Some("x")));
}

/// Second texts were once given the ends of first ones.
#[test]
fn each_text_of_a_pair_has_a_way_of_its_own() {
    let rows = [Row { text_b: Some("one two three".to_owned()), ..row("a b c") }];
    let [first, second] = [["now"], ["then"]];
    let [first, second] = [&first, &second].map(|words| Replace { rate: 0.1, words });
    let ways = [Way { name: "replace", copies: 20, vary: [&first, &second] }];
    let mut all = Vec::new();
    augment(&rows, &[], &ways, &WordCutter::default(), 3, |variant| all.push(variant.row));
    assert!(all.iter().any(|row| row.text.contains("now")) && all.iter().any(|row| row.text == "a b c"));
    for row in all {
        let text_b = row.text_b.expect("a pair");
        assert!(!row.text.contains("then") && !text_b.contains("now"), "{} {text_b}", row.text);
        assert!((row.text == "a b c") != (text_b == "one two three"), "{} {text_b}", row.text);
    }
}

proptest! {
    /// Nothing makes a way panic, and what comes out is the same for any number of threads.
    #[test]
    fn any_text_can_be_varied(texts in prop::collection::vec("(?s).{0,40}", 1..8), seed: u64, rate in 0.01..1.0f64) {
        let cutter = WordCutter::default();
        let rows: Vec<Row> = texts.iter().map(|text| row(text)).collect();
        let sources: Vec<&str> = texts.iter().map(String::as_str).collect();
        let words = ["one", "二"];
        let synonyms = Synonyms::default();
        let rules = Rules(vec![vec!["a".to_owned(), "b".to_owned(), String::new()]]);
        let ways: Vec<Box<dyn Vary + '_>> = vec![
            Box::new(Swap { rate }), Box::new(Delete { rate }), Box::new(Insert { rate, words: &words }),
            Box::new(Replace { rate, words: &words }), Box::new(Mask { rate, token: "<mask>".to_owned() }),
            Box::new(Fragment), Box::new(Sentences), Box::new(Characters { rate }), Box::new(Keyboard { rate }),
            Box::new(Ocr { rate }), Box::new(Recombine { texts: &sources, cutter: &cutter }),
            Box::new(SynonymReplacement { rate, synonyms: &synonyms }), Box::new(rules),
        ];
        let ways: Vec<Way<'_>> = ways.iter().map(|vary| Way { name: "any", copies: 2, vary: [&**vary, &**vary] }).collect();
        let all = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
            let mut all = Vec::new();
            pool.install(|| augment(&rows, &[], &ways, &cutter, seed, |variant| all.push(variant)));
            all
        };
        let one = all(1);
        prop_assert_eq!(&one, &all(3));
        prop_assert!(one.iter().all(|variant| !texts.contains(&variant.row.text)));
    }
}
