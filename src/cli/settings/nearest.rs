//! What somebody may have meant by a word that is not known.

/// The word that is most like `text`, if one is like it at all: at most a third of it is different.
pub(in crate::cli) fn nearest<'a>(
    text: &str,
    words: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    let limit = (text.chars().count() / 3).max(2);
    words
        .map(|word| {
            // The beginning of a word is as good as a typing error.
            let is_start = text.chars().count() > 2 && word.starts_with(text);
            let distance = if is_start { 1 } else { distance(text, word) };
            (distance, word)
        })
        .filter(|&(distance, word)| distance <= limit && distance < word.chars().count())
        .min()
        .map(|(_, word)| word)
}

/// Characters to insert, remove, replace or swap with their neighbour to make one word of the other
/// (Damerau and Levenshtein, no part twice).
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().collect();
    let right: Vec<char> = right.chars().collect();
    let mut rows: Vec<Vec<usize>> = vec![(0..=right.len()).collect()];
    for i in 1..=left.len() {
        let mut row = vec![i];
        for j in 1..=right.len() {
            let differs = usize::from(left[i - 1] != right[j - 1]);
            let mut cost = (rows[i - 1][j] + 1)
                .min(row[j - 1] + 1)
                .min(rows[i - 1][j - 1] + differs);
            let is_swapped =
                i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1];
            if is_swapped {
                cost = cost.min(rows[i - 2][j - 2] + 1);
            }
            row.push(cost);
        }
        rows.push(row);
    }
    rows[left.len()][right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_count_typing_errors() {
        assert_eq!(distance("listen", "listen"), 0);
        assert_eq!(distance("lisen", "listen"), 1);
        assert_eq!(distance("listne", "listen"), 1);
        assert_eq!(distance("", "abc"), 3);
    }

    #[test]
    fn the_nearest_word_is_named_only_if_it_is_near() {
        let words = ["listen", "timeout", "state-dir", "seed"];
        let nearest = |text| nearest(text, words.into_iter());
        assert_eq!(nearest("lisen"), Some("listen"));
        assert_eq!(nearest("state_dir"), Some("state-dir"));
        assert_eq!(nearest("timeuot"), Some("timeout"));
        assert_eq!(nearest("time"), Some("timeout"));
        assert_eq!(nearest("colour"), None);
        assert_eq!(nearest(""), None);
    }
}
