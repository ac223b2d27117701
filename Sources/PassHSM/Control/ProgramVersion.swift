/// The version of the program, as `--version` and `status` show it: the one place that says it. CHANGELOG.md says what is
/// in each.
package enum ProgramVersion {
    package static let text = "0.1.0"
}
