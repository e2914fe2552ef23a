//! The normative statements of MQTT 5.0 (its appendix B): how many each section has, and which of
//! them ask nothing of this broker. All others bind it.

/// The client is to do or to leave it, and a broker has no way to see whether it does.
const CLIENT: &str = "the client's duty";
/// Of servers that offer less.
const FULL: &str = "every QoS and retained messages are supported";
/// Of enhanced authentication.
const NO_METHOD: &str = "no method of enhanced authentication is offered, and no AUTH is sent";
/// The number was not given.
const NONE: &str = "there is no statement of this number";

/// A section, the number of its last statement, and those that ask nothing of this broker.
pub type Section = (&'static str, u32, &'static [(u32, &'static str)]);

pub const STATEMENTS: &[Section] = &[
    ("1.5.4", 3, &[]),
    ("1.5.5", 1, &[]),
    ("1.5.7", 1, &[]),
    ("2.1.3", 1, &[]),
    ("2.2.1", 6, &[(1, NONE)]),
    ("2.2.2", 1, &[]),
    ("3.1.0", 2, &[]),
    ("3.1.2", 30, &[(20, CLIENT), (21, CLIENT), (30, CLIENT)]),
    ("3.1.3", 12, &[]),
    ("3.1.4", 6, &[]),
    ("3.2.0", 2, &[]),
    (
        "3.2.2",
        22,
        &[
            (4, CLIENT),
            (5, CLIENT),
            (9, FULL),
            (10, FULL),
            (11, CLIENT),
            (12, FULL),
            (13, FULL),
            (14, CLIENT),
            (18, CLIENT),
            (21, CLIENT),
        ],
    ),
    ("3.3.1", 13, &[]),
    ("3.3.2", 20, &[(10, CLIENT)]),
    ("3.3.4", 10, &[(8, CLIENT)]),
    ("3.4.2", 3, &[]),
    ("3.5.2", 3, &[]),
    ("3.6.1", 1, &[]),
    ("3.6.2", 3, &[]),
    ("3.7.2", 3, &[]),
    ("3.8.1", 1, &[]),
    ("3.8.3", 5, &[]),
    ("3.8.4", 8, &[]),
    ("3.9.2", 2, &[]),
    ("3.9.3", 2, &[]),
    ("3.10.1", 1, &[]),
    ("3.10.3", 2, &[]),
    ("3.10.4", 6, &[]),
    ("3.11.2", 2, &[]),
    ("3.11.3", 2, &[]),
    ("3.12.4", 1, &[]),
    ("3.14.0", 1, &[]),
    ("3.14.1", 1, &[]),
    ("3.14.2", 4, &[]),
    ("3.14.4", 3, &[]),
    ("3.15.1", 1, &[]),
    ("3.15.2", 3, &[(2, NO_METHOD), (3, NO_METHOD)]),
    ("4.1.0", 2, &[]),
    ("4.2", 1, &[]),
    ("4.3.1", 1, &[]),
    ("4.3.2", 5, &[]),
    ("4.3.3", 13, &[]),
    ("4.4.0", 2, &[]),
    ("4.5.0", 2, &[(2, CLIENT)]),
    ("4.6.0", 6, &[(1, CLIENT), (2, CLIENT), (3, CLIENT), (4, CLIENT)]),
    ("4.7.0", 1, &[]),
    ("4.7.1", 2, &[]),
    ("4.7.2", 1, &[]),
    ("4.7.3", 4, &[]),
    ("4.8.2", 6, &[]),
    ("4.9.0", 3, &[]),
    ("4.12.0", 7, &[(2, NO_METHOD), (3, CLIENT), (5, NO_METHOD), (7, CLIENT)]),
    ("4.12.1", 2, &[(1, CLIENT)]),
    ("4.13.1", 1, &[]),
    ("4.13.2", 1, &[]),
    ("6.0.0", 4, &[]),
];
