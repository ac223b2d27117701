import HSMCore
import HSMSystem

/// Looking at files without using them: nothing is written, and a daemon may be at work on them.
extension Store {
    /// Which granules of the file with this record are present, for showing.
    ///
    /// What was written locally and may have been lost with the lower mount of that time counts as absent, and so does
    /// what a page of the map says that is damaged, or is being written now.
    package func presence(of record: Record) throws(RecordError) -> GranuleSet {
        switch record.state {
        case .local, .dual: return GranuleSet(0..<record.layout.count)
        case .offline: return GranuleSet()
        case .partial: break
        }
        let (sidecar, session) = try Sidecar.open(in: partial, name: record.identity.name, epoch: record.epoch)
        let count = record.layout.count
        var present = GranuleSet()
        do throws(Errno) {
            try sidecar.forEachPage { first, page in
                guard let page else { return }
                for granule in first..<max(first, min(first + Sidecar.granulesPerPage, count)) {
                    switch page.presence(of: granule) {
                    case .absent: continue
                    case .filled, .written: present.insert(granule..<granule + 1)
                    case .writtenVolatile: if session == self.session { present.insert(granule..<granule + 1) }
                    }
                }
            }
        } catch {
            throw RecordError("the residency map cannot be read: \(error.text)")
        }
        return present
    }
}
