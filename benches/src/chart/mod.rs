//! Charts as SVG: readable in light and in dark surroundings, by those who see few colours, and by those who see none.
//!
//! Colours come from one style sheet that asks what surrounds the picture. Nothing is said by colour alone: every mark has a
//! text beside it or a title, and the picture as a whole has a title and a description.

mod lines;
mod ratios;
mod svg;

pub use lines::{Axis, LineChart, Scale, Series};
pub use ratios::{RatioChart, RatioRow};
