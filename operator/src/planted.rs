//! Bugs that the suite plants to see itself catch them. Outside of tests the macro is `false` and nothing is left of it.

/// Whether the bug of this name is planted on this thread.
#[cfg(test)]
macro_rules! mutant {
    ($name:ident) => {
        $crate::grant::mutant::is_planted($crate::grant::mutant::Mutant::$name)
    };
}

/// Whether the bug of this name is planted: never.
#[cfg(not(test))]
macro_rules! mutant {
    ($name:ident) => {
        false
    };
}

pub(crate) use mutant;
