//! Programs of every family, cut down, joined and given places, for what may be asked of them.

use super::*;
use crate::cpu::CpuHabits;
use crate::twin::tests::{FAMILIES, config, masked_lm, trial};
use crate::value::Tap;
use crate::{Activation, EncoderConfig, Family, Layout};

/// Walks the list forwards and back and keeps book of what stands in each place: whatever an operation reads is still
/// there. Returns the number of places.
fn check_places(config: &EncoderConfig, habits: &dyn Habits, taps: &[Tap], training: bool) -> usize {
    let mut program = config.program().demanded(taps, training).expect("the model's taps");
    program.join(&Layout::new(config), |program, value| habits.holds_taps() || !program.is_query(value));
    for layers in [1, 2] {
        program
            .clone()
            .stages(Some(layers))
            .into_iter()
            .for_each(|stage| _ = check_stage(stage, habits, taps, training));
    }
    check_stage(program, habits, taps, training)
}

fn check_stage(program: Program, habits: &dyn Habits, taps: &[Tap], training: bool) -> usize {
    let plan = Plan::new(program, habits, training);
    let (program, n) = (&plan.program, plan.program.ops.len());
    let mut holder: Vec<Option<(&str, usize)>> = vec![None; plan.places.len()];
    let named = |what: &'static str, value: ValueId| Some((what, value.0));
    let needs: Vec<Needs> = program.ops.iter().map(|op| habits.needs(program, op)).collect();
    let is_tap = |op: &Op| matches!(op.kind, Kind::Tap(_));
    for &value in &program.given {
        holder[plan.value(value).expect("a place")] = named("value", value);
    }
    for (index, (op, needs)) in program.ops.iter().zip(&needs).enumerate() {
        for input in &op.inputs {
            let place = plan.value(input.value).expect("a place");
            assert_eq!(holder[place], named("value", input.value), "{taps:?}: forward of {op:?}");
        }
        let inputs: Vec<_> = op.inputs.iter().map(|input| plan.value(input.value)).collect();
        if !is_tap(op) {
            let out = plan.value(op.out);
            assert!(needs.in_place || !inputs.contains(&out), "{taps:?}: {op:?} writes over what it reads");
            holder[out.expect("a place")] = named("value", op.out);
        }
        let states = (0..needs.states.len()).map(|state| Some(plan.state(index, state)));
        for state in states {
            assert!(
                !inputs.contains(&state) && state != plan.value(op.out),
                "{taps:?}: {op:?} keeps in a value's place"
            );
        }
        (0..needs.states.len()).for_each(|state| holder[plan.state(index, state)] = Some(("state", index)));
    }
    for op in program.ops.iter().filter(|op| is_tap(op) && habits.holds_taps()) {
        assert_eq!(
            holder[plan.value(op.inputs[0].value).expect("a place")],
            named("value", op.inputs[0].value),
            "{op:?}"
        );
        if training {
            holder[plan.gradient(op.out).expect("a place")] = named("gradient", op.out);
        }
    }
    for &value in &program.handed {
        assert_eq!(holder[plan.value(value).expect("a place")], named("value", value), "{taps:?}: handed over");
        if training {
            holder[plan.gradient(value).expect("a place")] = named("gradient", value);
        }
    }
    for (index, (op, needs)) in program.ops.iter().zip(&needs).enumerate().rev().filter(|_| training) {
        let handed_out = is_tap(op) && !habits.holds_taps();
        let d_out = plan.gradient(op.out);
        assert!(
            handed_out || holder[d_out.expect("a place")] == named("gradient", op.out),
            "{taps:?}: backward of {op:?}"
        );
        let kept = needs.keeps.iter().map(|&input| op.inputs[input].value).chain(needs.keeps_output.then_some(op.out));
        for value in kept {
            assert_eq!(
                holder[plan.value(value).expect("a place")],
                named("value", value),
                "{taps:?}: backward of {op:?}"
            );
        }
        for state in 0..needs.states.len() {
            assert_eq!(holder[plan.state(index, state)], Some(("state", index)), "{taps:?}: backward of {op:?}");
        }
        (0..needs.scratch.len())
            .for_each(|scratch| holder[plan.scratch(index, scratch)] = Some(("scratch", n + index)));
        for (input, columns) in op.inputs.iter().enumerate() {
            let place = plan.gradient(columns.value).expect("a place");
            let stands = holder[place] == named("gradient", columns.value);
            assert!(!plan.adds(index, input) || stands, "{taps:?}: {op:?} adds to a gradient that is gone");
            holder[place] = named("gradient", columns.value);
        }
    }
    // Weights' gradients, behind everything else.
    for (op, needs) in program.ops.iter().zip(&needs).filter(|(_, needs)| training && needs.weights_last) {
        assert_eq!(
            holder[plan.gradient(op.out).expect("a place")],
            named("gradient", op.out),
            "{taps:?}: weights of {op:?}"
        );
        for &input in needs.keeps {
            let value = op.inputs[input].value;
            assert_eq!(
                holder[plan.value(value).expect("a place")],
                named("value", value),
                "{taps:?}: weights of {op:?}"
            );
        }
    }
    for &value in program.given.iter().filter(|_| training) {
        assert_eq!(holder[plan.gradient(value).expect("a place")], named("gradient", value), "{taps:?}: given");
    }
    plan.places.len()
}

fn subsets(config: &EncoderConfig) -> Vec<Vec<Tap>> {
    let all: Vec<Tap> = config.program().taps().map(|(tap, _)| tap).collect();
    let mut subsets: Vec<Vec<Tap>> = all.iter().map(|&tap| vec![tap]).collect();
    subsets.extend(all.iter().map(|&tap| vec![Tap::Logits, tap]));
    subsets.push(all);
    subsets
}

#[test]
fn what_an_operation_reads_is_still_there() {
    let habits: [&dyn Habits; 2] = [&CpuHabits, &crate::cuda::CudaHabits(crate::cuda::Precision::Bf16)];
    let masked =
        [Family::BERT, Family::ROBERTA, Family::DISTILBERT].map(|family| masked_lm(family, Activation::Gelu, 0.1));
    for config in
        FAMILIES.map(|family| config(family, Activation::Gelu, 0.1)).into_iter().chain(masked).chain([trial()])
    {
        for taps in subsets(&config) {
            for (habits, training) in habits.into_iter().flat_map(|habits| [(habits, false), (habits, true)]) {
                check_places(&config, habits, &taps, training);
            }
        }
    }
}

#[test]
fn places_do_not_grow_with_the_layers_where_nothing_is_kept() {
    let config = |num_layers| EncoderConfig { num_layers, ..config(Family::BERT, Activation::Gelu, 0.1) };
    let places = |num_layers, training| check_places(&config(num_layers), &CpuHabits, &[Tap::Logits], training);
    assert_eq!(places(3, false), places(12, false));
    assert!(places(3, true) < places(12, true));
}

#[test]
fn an_activation_on_a_gpu_stands_in_its_input_s_place_unless_a_backward_pass_reads_that() {
    let habits = crate::cuda::CudaHabits(crate::cuda::Precision::Bf16);
    let all = FAMILIES.map(|family| config(family, Activation::Gelu, 0.1)).into_iter();
    for config in all.chain([masked_lm(Family::BERT, Activation::Gelu, 0.1)]) {
        for training in [false, true] {
            let program = config.program().demanded(&[Tap::Logits], training).expect("taps");
            let plan = Plan::new(program, &habits, training);
            let activations = plan.program.ops.iter().filter(|op| matches!(op.kind, Kind::Activate(_)));
            let shared: Vec<bool> =
                activations.map(|op| plan.value(op.out) == plan.value(op.inputs[0].value)).collect();
            assert!(shared.len() >= config.num_layers, "{shared:?}");
            assert!(shared.iter().all(|shared| *shared != training), "{:?}, {training}: {shared:?}", config.family);
        }
    }
}

#[test]
fn the_logits_alone_need_first_tokens_of_the_last_layer() {
    let config = config(Family::BERT, Activation::Gelu, 0.1);
    let rows = |taps: &[Tap]| -> Vec<Rows> {
        let program = config.program().demanded(taps, true).expect("taps");
        let norms = program.ops.iter().filter(|op| matches!(op.kind, Kind::ResidualNorm(_)));
        norms.map(|op| program.values[op.out.0].rows).collect()
    };
    let (all, first) = (Rows::Tokens, Rows::First);
    assert_eq!(rows(&[Tap::Logits]), [all, all, all, all, first, first]);
    assert_eq!(rows(&[Tap::Logits, Tap::Hidden(3)]), [all; 6]);
    // The queries of every token are wanted, and nothing behind them.
    assert_eq!(rows(&[Tap::Logits, Tap::Query(2)]), [all, all, all, all, first, first]);
    // What lies behind a tap is not computed.
    assert_eq!(rows(&[Tap::Hidden(2)]), [all; 4]);
    assert_eq!(rows(&[Tap::Key(1), Tap::Hidden(0)]), [all; 2]);
    assert_eq!(rows(&[Tap::Hidden(0)]), []);
}

#[test]
fn each_engine_joins_what_it_joined() {
    let config = config(Family::BERT, Activation::Gelu, 0.1);
    let widths = |taps: &[Tap], queries: bool| -> Vec<usize> {
        let mut program = config.program().demanded(taps, true).expect("taps");
        program.join(&Layout::new(&config), |program, value| queries || !program.is_query(value));
        let of_hidden =
            program.ops.iter().filter(|op| matches!(&op.kind, Kind::Linear(linear) if linear.bias.is_some()));
        of_hidden.map(|op| program.values[op.out.0].width).collect()
    };
    let hidden = config.hidden_size;
    // Keys and values are one product, queries are apart; on a GPU all three are one where all have every row.
    let apart = [2 * hidden, hidden];
    let last = [config.num_labels];
    assert_eq!(widths(&[Tap::Logits], false), [&apart[..], &apart, &apart, &last].concat());
    assert_eq!(widths(&[Tap::Logits], true), [&[3 * hidden, 3 * hidden][..], &apart, &last].concat());
    let all = [Tap::Logits, Tap::Hidden(3)];
    assert_eq!(widths(&all, true), [&[3 * hidden; 3][..], &last].concat());
}
