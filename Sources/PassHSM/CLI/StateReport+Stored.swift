import HSMControl
import HSMStore
import HSMSystem

extension StateReport {
    /// What the store knows of a file, for display.
    init(_ state: StoredState, path: BytePath = BytePath([])) {
        let kind = Self.kind(ofMode: state.type)
        let error = state.problem ?? state.record?.lastError ?? ""
        var flags = state.record?.flags.names ?? []
        if state.problem != nil { flags.append("error") }
        self.init(
            path: path, kind: kind, state: state.state, flags: flags, size: kind == "directory" ? 0 : state.size,
            presentBytes: state.presentRanges.reduce(0) { $0 + $1.count }, ranges: state.presentRanges,
            remoteKey: state.record?.object.key.bytes, remoteVersion: state.record?.object.version.bytes,
            granuleSize: state.record?.granuleSize, lastError: error.isEmpty ? nil : error)
    }
}
