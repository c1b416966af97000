//! The page: the table, and plots of it.

use std::fmt::Write as _;

use super::plot::{Bar, Line, bars, escaped, legend, quantiles};
use super::table::{self, Row};
use super::targets::SIZES;
use super::{Run, Runs, grouped};

/// Latencies of one plot.
const LINES: usize = 10;
/// Names and places of the colours of marks.
const MARKS: [(usize, &str); 3] = [(2, "aim"), (1, "must be reached"), (5, "VPP (on a Zen 4)")];

const STYLE: &str = "body{font:15px/1.45 sans-serif;max-width:1000px;margin:2em auto;padding:0 1em}\
    table{border-collapse:collapse;font-size:13px}td,th{padding:2px 9px;text-align:right;border-bottom:1px solid #ddd}\
    td:first-child,th:first-child{text-align:left}.aim{background:#c7e9c0}.must{background:#e5f5e0}.behind{background:#fdd0a2}\
    .legend span{margin-right:1.2em;white-space:nowrap}.legend i{display:inline-block;width:.9em;height:.9em;margin-right:.3em}\
    svg{font-family:sans-serif;max-width:100%;height:auto}pre{font-size:12px;overflow-x:auto}";

pub(super) fn html(runs: &Runs, title: &str) -> String {
    let title = escaped(title);
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title><style>{STYLE}</style>\n<h1>{title}</h1>\n"
    );
    let rows = table::rows(runs);
    if !rows.is_empty() {
        page += "<h2>What a packet costs</h2>\n<p>Cycles of the time stamp counter per packet on one worker, from the receive burst to the \
                 transmit burst: the best pass, the median in brackets. What must be reached, what is aimed at and the peer's figures are of \
                 another machine (a Zen 4 with AVX-512): ratios to the reference loops of the same run compare machines.</p>\n";
        write_table(&mut page, &rows);
        write_costs(&mut page, &rows);
    }
    write_nodes(&mut page, &runs.runs);
    for latencies in runs.latencies.chunks(LINES) {
        let lines: Vec<_> = latencies
            .iter()
            .map(|latency| Line { name: latency.of.clone(), points: latency.quantiles.clone() })
            .collect();
        let names = lines.iter().enumerate().map(|(at, line)| (at, line.name.as_str()));
        let _ = write!(page, "<h2>Latency</h2>\n{}{}\n", legend(names), quantiles(&lines));
    }
    let _ = write!(page, "<h2>All of it</h2>\n<pre>{}</pre>\n</html>\n", escaped(&table::text(runs)));
    page
}

fn write_table(page: &mut String, rows: &[Row<'_>]) {
    page.push_str("<table><tr><th>scenario</th><th>spokes</th>");
    for size in SIZES {
        let _ = write!(page, "<th>{size} B</th><th>must</th><th>of VPP</th>");
    }
    page.push_str("</tr>\n");
    for row in rows {
        let _ = write!(page, "<tr><td>{}</td><td>{}</td>", row.scenario, grouped(row.spokes));
        for cell in &row.cells {
            match cell.run {
                Some(run) => {
                    let class = match cell.verdict() {
                        "behind peer" => "behind",
                        reached => reached.split(' ').next().unwrap_or_default(),
                    };
                    let (best, median) = (run.cycles_per_packet_min, run.cycles_per_packet);
                    let _ = write!(page, r#"<td class="{class}">{best:.0} ({median:.0})</td>"#);
                }
                None => page.push_str("<td></td>"),
            }
            let must = cell.target.map_or(String::new(), |target| format!("{:.0}", target.must[cell.at]));
            let of_peer = cell.of_peer().map_or(String::new(), |ratio| format!("{ratio:.2}"));
            let _ = write!(page, "<td>{must}</td><td>{of_peer}</td>");
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table>\n");
}

fn write_costs(page: &mut String, rows: &[Row<'_>]) {
    for (at, size) in SIZES.iter().enumerate() {
        let bar = |row: &Row<'_>| {
            let cell = &row.cells[at];
            let cycles = cell.cycles()?;
            let marks = cell.target.map_or(Vec::new(), |target| {
                MARKS
                    .iter()
                    .map(|(colour, _)| *colour)
                    .zip([target.aim[at], target.must[at], target.peer[at]])
                    .collect()
            });
            let name = format!("{}, {} spokes", row.scenario, grouped(row.spokes));
            Some(Bar { name, parts: vec![(0, cycles)], marks, said: format!("{cycles:.0}") })
        };
        let all: Vec<_> = rows.iter().filter_map(bar).collect();
        if !all.is_empty() {
            let names = [(0, "Nave, best pass")].into_iter().chain(MARKS);
            let _ =
                write!(page, "<h3>{size} bytes</h3>\n{}{}\n", legend(names), bars(&all, "cycles per packet"));
        }
    }
}

fn write_nodes(page: &mut String, runs: &[Run]) {
    let mut names: Vec<&str> = runs.iter().flat_map(|run| run.nodes.keys().map(String::as_str)).collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return;
    }
    let place = |name: &str| names.iter().position(|other| *other == name).unwrap_or_default();
    let bar = |run: &Run| Bar {
        name: run.name(),
        parts: run.nodes.iter().map(|(node, cycles)| (place(node), *cycles)).collect(),
        marks: Vec::new(),
        said: format!("{:.0}", run.cycles_per_packet),
    };
    let (names, all) = (legend(names.iter().copied().enumerate()), runs.iter().map(bar).collect::<Vec<_>>());
    let _ = write!(
        page,
        "<h2>Where the cycles go</h2>\n<p>By node, medians.</p>\n{names}{}\n",
        bars(&all, "cycles per packet")
    );
}

#[cfg(test)]
mod tests {
    use super::super::tests::line;
    use super::*;

    #[test]
    fn the_page_has_the_table_the_bars_the_nodes_and_the_latencies() {
        let mut runs = Runs::default();
        runs.add(&line("encap", 1000, "64", 55.0)).unwrap();
        runs.add(r#"{"latency": {"p50_us": 5, "p99_us": 9, "p99_9_us": 12, "max_us": 50, "quantiles": [[0.5, 5], [1, 50]]}}"#)
            .unwrap();
        let page = html(&runs, "a <machine>");
        assert!(page.contains("<h1>a &lt;machine&gt;</h1>"));
        assert!(page.contains(r#"<td class="aim">50 (55)</td><td>70</td><td>0.53</td>"#), "{page}");
        // One plot of costs, one of nodes, one of latencies.
        assert_eq!(page.matches("<svg").count(), 3);
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
        assert!(page.contains("20.0</title>") && page.contains("15.5</title>"), "each node's cycles");
    }
}
