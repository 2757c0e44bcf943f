#![allow(clippy::all, missing_docs, clippy::print_stdout, clippy::unwrap_used)]
use nn::*; use std::time::Instant;
fn config(layers: usize, hidden: usize, heads: usize, family: Family, vocab: usize) -> EncoderConfig {
    EncoderConfig { family, vocab_size: vocab, embedding_size: hidden, hidden_size: hidden, num_layers: layers, num_heads: heads, intermediate_size: 4*hidden, max_positions: 512, pad_token_id: 0, type_vocab_size: if family==Family::Bert {2} else {0}, layer_norm_epsilon: 1e-12, activation: Activation::Gelu, hidden_dropout: 0.1, attention_dropout: 0.1, classifier_dropout: 0.1, num_labels: 77 }
}
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let rows: Vec<Vec<u32>> = std::fs::read_to_string("/tmp/exp/ids.txt").unwrap().lines().map(|l| l.split(' ').map(|x| x.parse().unwrap()).collect()).collect();
    let mut order: Vec<usize> = (0..rows.len()).collect(); order.sort_by_key(|&i| rows[i].len());
    let batch = |ix: &[usize]| { let mut ids = vec![]; let mut starts = vec![0u32]; for &i in ix { ids.extend_from_slice(&rows[i]); starts.push(ids.len() as u32); } let ty = vec![0u32; ids.len()]; (ids, ty, starts) };
    let threads: usize = std::env::var("THREADS").map(|t| t.parse().unwrap()).unwrap_or(2);
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().unwrap();
    let what = args.get(1).map(String::as_str).unwrap_or("all");
    if what == "all" || what == "capture" {
        let c = config(6, 384, 12, Family::Bert, 30522); let mut e = Encoder::new(&c).unwrap(); let p = Parameters::random(e.layout().clone(), 0, 1);
        let bt: usize = std::env::var("BT").map(|t| t.parse().unwrap()).unwrap_or(2048);
        let mut batches = vec![]; let mut cur = vec![]; let mut tok = 0; for &i in order.iter().rev() { if tok + rows[i].len() > bt { batches.push(batch(&cur)); cur.clear(); tok = 0; } tok += rows[i].len(); cur.push(i); } batches.push(batch(&cur));
        for _ in 0..4 { let t = Instant::now(); for b in &batches { e.forward(&p, PackedInput{input_ids:&b.0, token_type_ids:&b.1, starts:&b.2}, Capture::LOGITS, Mode::Eval).unwrap(); } println!("capture {:.0} rows/s", rows.len() as f64 / t.elapsed().as_secs_f64()); }
    }
    for (name, l, h, hd) in [("3x384", 3, 384, 12), ("2x128", 2, 128, 2), ("6x768", 6, 768, 12)] {
        if what != "all" && what != name { continue }
        let c = config(l, h, hd, Family::DistilBert, 30522); let mut e = Encoder::new(&c).unwrap(); let mut p = Parameters::random(e.layout().clone(), 0, 1);
        let mut g = Gradients::zeros(e.layout().clone()); let mut o = AdamW::new(e.layout().clone(), 0.01);
        let batches: Vec<_> = order.chunks(32).step_by(if l==6 {4} else {1}).map(|c| (batch(c), c.len())).collect();
        let mut step = 0;
        for _ in 0..3 { let t = Instant::now(); let mut n = 0; let mut td = 0.0; for (b, r) in &batches {
            let rng = DropoutRng::new(1, step, 0); step += 1;
            o.look_up(&mut p, &b.0); let out = e.forward(&p, PackedInput{input_ids:&b.0, token_type_ids:&b.1, starts:&b.2}, Capture::LOGITS, Mode::Train(&rng)).unwrap();
            let d: Vec<f32> = out.logits.iter().map(|x| x * 1e-3 + 1e-4).collect();
            e.backward(&p, &d, &mut g).unwrap(); let t2 = Instant::now(); let norm = g.norm(); o.step(&mut p, &mut g, 1e-4, (1.0/(norm+1e-6)).min(1.0) as f32); td += t2.elapsed().as_secs_f64(); n += r; }
          let e = t.elapsed().as_secs_f64(); println!("train {name} {:.0} rows/s ({:.1} ms/step, optimiser {:.1} ms)", n as f64 / e, e*1e3/batches.len() as f64, td*1e3/batches.len() as f64); }
    }
    println!("{}", std::fs::read_to_string("/proc/self/status").unwrap().lines().find(|l| l.starts_with("VmHWM")).unwrap());
}
