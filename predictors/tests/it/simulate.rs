//! The figures that the mechanism must reach, over twenty seeds.

use predictors::data::iris;
use predictors::simulate::{Scenario, Simulation, simulate};

/// Points of accuracy.
const TOLERANCE: f64 = 0.3;

fn run(scenario: Scenario) -> Simulation {
    let simulation = simulate(&iris(), scenario, 150, 20, &mut || {}).unwrap();
    assert!(simulation.conserved);
    simulation
}

#[track_caller]
fn reaches(scenario: Scenario, accuracy: f64, harmless_after: f64, harmless_after_max: usize) -> Simulation {
    let simulation = run(scenario);
    assert!(
        100.0 * simulation.accuracy >= accuracy - TOLERANCE,
        "{}",
        simulation.accuracy
    );
    let (mean, most) = (
        simulation.harmless_after.unwrap_or(0.0),
        simulation.harmless_after_max.unwrap_or(0),
    );
    assert!(
        mean <= harmless_after + 0.5 && most <= harmless_after_max,
        "{mean} {most}"
    );
    simulation
}

#[test]
fn honest_models_agree() {
    let simulation = reaches(Scenario::Honest, 95.5, 0.0, 0);
    // The reference is of trees without any smoothing, which ours have: scikit-learn's come to 0.118 with as much as
    // theory asks for, ours stay below.
    assert!(simulation.log_loss < 0.117, "{}", simulation.log_loss);
}

#[test]
fn a_random_model_is_soon_harmless() {
    reaches(Scenario::Random, 95.5, 3.4, 11);
}

#[test]
fn an_always_wrong_model_is_ejected() {
    let simulation = reaches(Scenario::Flipper, 95.5, 1.1, 3);
    assert_eq!(simulation.ejected_in, 20);
    let (first, last) = simulation.ejected_after.unwrap();
    // As with the models of scikit-learn: 15 where all others are right all the time, and one more for each time that
    // the stream has a flower which many of them do not know.
    assert!(first >= 15 && last <= 17, "{first} {last}");
    let mean = simulation.ejected_after_mean.unwrap();
    assert!((15.0..=16.0).contains(&mean), "{mean}");
}

#[test]
fn two_of_five_that_collude_lose() {
    reaches(Scenario::Collude2, 95.5, 2.0, 3);
}

#[test]
fn three_of_five_that_collude_win_at_first_only() {
    let simulation = reaches(Scenario::Collude3, 94.4, 2.0, 3);
    assert!(simulation.unweighted_accuracy < 0.1);
}

#[test]
fn five_names_of_one_adversary_win_at_first_only() {
    reaches(Scenario::Sybil5, 94.9, 2.0, 3);
}

#[test]
fn a_model_that_turns_bad_is_noticed() {
    reaches(Scenario::Drift, 95.5, 6.0, 7);
}
