//! A figure measured several times.

/// Median, lowest and highest of several rounds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spread(Vec<f64>);

impl Spread {
    /// Adds the figure of one round.
    pub(crate) fn add(&mut self, value: f64) {
        self.0.push(value);
        self.0.sort_by(f64::total_cmp);
    }

    /// The figure in the middle (the mean of two for an even number).
    pub(crate) fn median(&self) -> f64 {
        let middle = self.0.len() / 2;
        match self.0.len() {
            0 => f64::NAN,
            even if even.is_multiple_of(2) => self.0[middle - 1].midpoint(self.0[middle]),
            _ => self.0[middle],
        }
    }

    /// `median (lowest–highest)`, without decimals above 10.
    pub(crate) fn show(&self) -> String {
        let number = |value: f64| if value.abs() < 10.0 { format!("{value:.2}") } else { format!("{value:.0}") };
        match (self.0.first(), self.0.last()) {
            (Some(lowest), Some(highest)) if self.0.len() > 1 => {
                format!("{} ({}–{})", number(self.median()), number(*lowest), number(*highest))
            }
            _ => number(self.median()),
        }
    }
}

impl FromIterator<f64> for Spread {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let mut spread = Self::default();
        values.into_iter().for_each(|value| spread.add(value));
        spread
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(Spread::from_iter([5.0, 1.0, 3.0]).show(), "3.00 (1.00–5.00)");
        assert_eq!(Spread::from_iter([40.0, 10.0]).show(), "25 (10–40)");
        assert_eq!(Spread::from_iter([7.0]).show(), "7.00");
    }
}
