import HSMControl
import HSMCore
import HSMSystem
import Testing

@Suite struct ReportTests {
    @Test func aStatusReportSurvivesJSON() throws {
        let report = StatusReport.example()
        let bytes = try ControlJSON.encode(report)
        #expect(!bytes.contains(UInt8(ascii: "\n")))
        #expect(try ControlJSON.decode(StatusReport.self, from: bytes) == report)
    }

    @Test func countersComeBackInTheEnginesOrder() throws {
        let counts = NamedCounts(EngineCounters().snapshot + [("another", 1), ("zebra", 2)])
        let bytes = try ControlJSON.encode(counts)
        #expect(String(decoding: bytes, as: UTF8.self).hasPrefix("{\"another\":1,"))
        #expect(try ControlJSON.decode(NamedCounts.self, from: bytes) == counts)
    }

    @Test func aStateReportHoldsAtMostAThousandRanges() throws {
        let ranges = (0..<1001).map { $0 * 10..<$0 * 10 + 5 }
        let report = StateReport(
            path: BytePath([0xFE]), kind: "file", state: "partial", flags: ["dirty"], size: 20_000, presentBytes: 5005,
            ranges: ranges, remoteKey: [0x61, 0xFF], remoteVersion: Array("v1".utf8), granuleSize: 65_536)
        #expect(report.ranges.count == 1000 && report.rangesTruncated)
        #expect(report.ranges[1] == [10, 15])
        let back = try ControlJSON.decode(StateReport.self, from: ControlJSON.encode(report))
        #expect(back == report)
        #expect(back.remoteKey.map(ArgumentText.decode) == [0x61, 0xFF])
        #expect(!StateReport(kind: "file", state: "local", size: 0, presentBytes: 0).rangesTruncated)
    }

    @Test func theOwnProcessIsDescribed() {
        let report = StatusReport.example()
        #expect(report.memoryBytes > 1 << 20 && report.openDescriptors > 2)
    }
}
