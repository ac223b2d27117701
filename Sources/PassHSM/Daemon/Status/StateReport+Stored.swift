import HSMControl
import HSMStore
import HSMSystem

extension StateReport {
    /// Reports the store's state of a file, for display.
    package init(_ state: StoredState, path: BytePath = BytePath([])) {
        let kind = Self.kind(ofMode: state.type)
        let error = state.problem ?? state.record?.lastError ?? ""
        var flags = state.record?.flags.names ?? []
        if state.problem != nil { flags.append("error") }
        self.init(
            path: path, kind: kind, state: state.state, flags: flags, size: kind == "directory" ? 0 : state.size,
            presentBytes: state.presentRanges.reduce(0) { $0 + $1.count }, ranges: state.presentRanges,
            remoteKey: state.record?.object.key.bytes,
            remoteVersion: state.record.map { Array($0.object.version.description.utf8) },
            granuleSize: state.record?.granuleSize, lastError: error.isEmpty ? nil : error)
        if let record = state.record, kind == "file", self.state == Record.State.partial.name,
            record.flags.contains(.dirty), !record.flags.isDisjoint(with: [.stale, .lost])
        {
            add(
                warning:
                    "\(max(0, size - presentBytes)) bytes that were not changed here are missing, and the source no "
                    + "longer has them; they can be read only when it has the recorded version again")
        }
    }

    /// Adds a warning for the user; nil adds nothing.
    package mutating func add(warning: String?) {
        guard let warning else { return }
        self.warning = self.warning.map { "\($0); \(warning)" } ?? warning
    }
}
