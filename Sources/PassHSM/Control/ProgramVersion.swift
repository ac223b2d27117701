/// The version of the program, as `--version` and `status` show it. It is defined here only; CHANGELOG.md lists the
/// changes of each version.
package enum ProgramVersion {
    package static let text = "0.1.0"
}
