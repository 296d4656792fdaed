"""Which virtual method stands where: the order of methods per class in TensorRT 8.6, 10 and 11.

Facts of NVIDIA's public headers (NvInferImpl.h of the tags 8.6.1, 10.16 and 11.1; NvOnnxParser.h). Within a major
version methods are only appended, so the table of 10.16 serves 10.0 too, and that of 11.1 stands for 11.4. A ``~``
is one of the two entries of a virtual destructor; a ``#2`` is the second overload of a name.
"""

from __future__ import annotations

__all__ = ["methods_in_order", "public_methods_in_order"]


def methods_in_order(table: str, major: int) -> list[str]:
    """Return the virtual methods of a class of TensorRT 8, 10 or 11, one per slot of its vtable."""
    if major < 10:
        return (TABLES_8.get(table) or TABLES_10[table]).split()
    names = TABLES_10[table].split()
    if major == 10:
        return names
    removed, appended = CHANGES_11.get(table, ("", ""))
    return [name for name in names if name not in removed.split()] + appended.split()


def public_methods_in_order(table: str, major: int) -> list[str]:
    """Return the virtual methods of the public class that forwards to an implementation: destructors and few others."""
    others = PUBLIC.get((table, min(major, 10))) or PUBLIC.get((table, 0), "")
    return ["~complete", "~deleting", *others.split()]


PUBLIC: dict[tuple[str, int], str] = {
    ("VBuilderConfig", 8): "setMinTimingIterations getMinTimingIterations setAvgTimingIterations",
    ("VBuilderConfig", 10): "setAvgTimingIterations",
    ("VNetworkDefinition", 0): "getBuilder",
}
"""Virtual methods of public classes, from the major version on; 0 for all."""

TABLES_8: dict[str, str] = {
    "VBuilder": """
        ~complete ~deleting setMaxBatchSize getMaxBatchSize platformHasFastFp16 platformHasFastInt8 getMaxDLABatchSize
        getNbDLACores setGpuAllocator createBuilderConfig buildEngineWithConfig createNetworkV2
        createOptimizationProfile setErrorRecorder getErrorRecorder reset platformHasTf32 buildSerializedNetwork
        isNetworkSupported getLogger setMaxThreads getMaxThreads getPluginRegistry
    """,
    "VBuilderConfig": """
        ~complete ~deleting setMinTimingIterations getMinTimingIterations setAvgTimingIterations getAvgTimingIterations
        setEngineCapability getEngineCapability setInt8Calibrator getInt8Calibrator setMaxWorkspaceSize
        getMaxWorkspaceSize setFlags getFlags clearFlag setFlag getFlag setDeviceType getDeviceType isDeviceTypeSet
        resetDeviceType canRunOnDLA setDLACore getDLACore setDefaultDeviceType getDefaultDeviceType reset
        setProfileStream getProfileStream addOptimizationProfile getNbOptimizationProfiles setProfilingVerbosity
        getProfilingVerbosity setAlgorithmSelector getAlgorithmSelector setCalibrationProfile getCalibrationProfile
        setQuantizationFlags getQuantizationFlags clearQuantizationFlag setQuantizationFlag getQuantizationFlag
        setTacticSources getTacticSources createTimingCache setTimingCache getTimingCache setMemoryPoolLimit
        getMemoryPoolLimit setPreviewFeature getPreviewFeature setBuilderOptimizationLevel getBuilderOptimizationLevel
        setHardwareCompatibilityLevel getHardwareCompatibilityLevel setPluginsToSerialize getPluginToSerialize
        getNbPluginsToSerialize setMaxAuxStreams getMaxAuxStreams
    """,
    "VNetworkDefinition": """
        ~complete ~deleting addInput markOutput addConvolution addFullyConnected addActivation addPooling addLRN
        addScale addSoftMax addConcatenation addDeconvolution addElementWise addUnary addPadding addShuffle getNbLayers
        getLayer getNbInputs getInput getNbOutputs getOutput addReduce addTopK addGather addRaggedSoftMax
        addMatrixMultiply addConstant addRNNv2 addIdentity removeTensor unmarkOutput addPluginV2 addSlice setName
        getName addShape hasImplicitBatchDimension markOutputForShapes unmarkOutputForShapes addParametricReLU
        addConvolutionNd addPoolingNd addDeconvolutionNd addScaleNd addResize hasExplicitPrecision addLoop addSelect
        addFill addPaddingNd setWeightsName setErrorRecorder getErrorRecorder addDequantize addQuantize addGatherV2
        addIfConditional addScatter addEinsum addAssertion addOneHot addNonZero addGridSample addNMS addReverseSequence
        addNormalization addCast getBuilder
    """,
    "VLayer": """
        ~complete ~deleting getType setName getName getNbInputs getInput getNbOutputs getOutput setInput setPrecision
        getPrecision precisionIsSet resetPrecision setOutputType getOutputType outputTypeIsSet resetOutputType
        setMetadata getMetadata
    """,
    "VOptimizationProfile": """
        ~complete ~deleting setDimensions getDimensions setShapeValues getNbShapeValues getShapeValues
        setExtraMemoryTarget getExtraMemoryTarget isValid
    """,
    "VTimingCache": """
        ~complete ~deleting serialize combine reset
    """,
    "VRuntime": """
        ~complete ~deleting deserializeCudaEngine setDLACore getDLACore getNbDLACores setGpuAllocator setErrorRecorder
        getErrorRecorder getLogger setMaxThreads getMaxThreads setTemporaryDirectory getTemporaryDirectory
        setTempfileControlFlags getTempfileControlFlags getPImpl getPluginRegistry setPluginRegistryParent loadRuntime
        setEngineHostCodeAllowed getEngineHostCodeAllowed
    """,
    "VCudaEngine": """
        ~complete ~deleting getNbBindings getBindingIndex getBindingName bindingIsInput getBindingDimensions
        getBindingDataType getMaxBatchSize getNbLayers serialize createExecutionContext getLocation
        createExecutionContextWithoutDeviceMemory getDeviceMemorySize isRefittable getBindingBytesPerComponent
        getBindingComponentsPerElement getBindingFormat getBindingFormatDesc getBindingVectorizedDim getName
        getNbOptimizationProfiles getProfileDimensions getProfileShapeValues isShapeBinding isExecutionBinding
        getEngineCapability setErrorRecorder getErrorRecorder hasImplicitBatchDimension getTacticSources
        getProfilingVerbosity createEngineInspector getTensorShape getTensorDataType getTensorLocation
        isShapeInferenceIO getTensorIOMode getTensorBytesPerComponent getTensorComponentsPerElement getTensorFormat
        getTensorFormatDesc getTensorVectorizedDim getProfileShape getNbIOTensors getIOTensorName
        getHardwareCompatibilityLevel getPImpl getNbAuxStreams getTensorBytesPerComponentV2
        getTensorComponentsPerElementV2 getTensorFormatV2 getTensorFormatDescV2 getTensorVectorizedDimV2
    """,
    "VExecutionContext": """
        ~complete ~deleting execute enqueue setDebugSync getDebugSync setProfiler getProfiler getEngine setName getName
        setDeviceMemory getStrides setOptimizationProfile getOptimizationProfile setBindingDimensions
        getBindingDimensions setInputShapeBinding getShapeBinding allInputDimensionsSpecified allInputShapesSpecified
        setErrorRecorder getErrorRecorder executeV2 enqueueV2 setOptimizationProfileAsync setEnqueueEmitsProfile
        getEnqueueEmitsProfile reportToProfiler setInputShape getTensorShape getTensorStrides setTensorAddress
        getTensorAddress setInputTensorAddress inferShapes setInputConsumedEvent getInputConsumedEvent
        getOutputTensorAddress setOutputAllocator getOutputAllocator getMaxOutputSize setTemporaryStorageAllocator
        getTemporaryStorageAllocator enqueueV3 setPersistentCacheLimit getPersistentCacheLimit setNvtxVerbosity
        getNvtxVerbosity getPImpl setAuxStreams
    """,
    "VEngineInspector": """
        ~complete ~deleting setExecutionContext getExecutionContext getLayerInformation getEngineInformation
        setErrorRecorder getErrorRecorder getPImpl
    """,
    "IParser": """
        parse parseFromFile supportsModel parseWithWeightDescriptors supportsOperator destroy getNbErrors getError
        clearErrors ~complete ~deleting getUsedVCPluginLibraries setFlags getFlags clearFlag setFlag getFlag
    """,
    "IParserError": """
        code desc file line func node ~complete ~deleting
    """,
}
"""TensorRT 8.6, where it differs from 10."""

TABLES_10: dict[str, str] = {
    "VBuilder": """
        ~complete ~deleting platformHasFastFp16 platformHasFastInt8 getMaxDLABatchSize getNbDLACores setGpuAllocator
        createBuilderConfig createNetworkV2 createOptimizationProfile setErrorRecorder getErrorRecorder reset
        platformHasTf32 buildSerializedNetwork isNetworkSupported getLogger setMaxThreads getMaxThreads
        getPluginRegistry buildEngineWithConfig buildSerializedNetworkToStream buildSerializedNetworkWithKernelText
    """,
    "VBuilderConfig": """
        ~complete ~deleting setAvgTimingIterations getAvgTimingIterations setEngineCapability getEngineCapability
        setInt8Calibrator getInt8Calibrator setFlags getFlags clearFlag setFlag getFlag setDeviceType getDeviceType
        isDeviceTypeSet resetDeviceType canRunOnDLA setDLACore getDLACore setDefaultDeviceType getDefaultDeviceType
        reset setProfileStream getProfileStream addOptimizationProfile getNbOptimizationProfiles setProfilingVerbosity
        getProfilingVerbosity setAlgorithmSelector getAlgorithmSelector setCalibrationProfile getCalibrationProfile
        setQuantizationFlags getQuantizationFlags clearQuantizationFlag setQuantizationFlag getQuantizationFlag
        setTacticSources getTacticSources createTimingCache setTimingCache getTimingCache setMemoryPoolLimit
        getMemoryPoolLimit setPreviewFeature getPreviewFeature setBuilderOptimizationLevel getBuilderOptimizationLevel
        setHardwareCompatibilityLevel getHardwareCompatibilityLevel setPluginsToSerialize getPluginToSerialize
        getNbPluginsToSerialize setMaxAuxStreams getMaxAuxStreams setProgressMonitor getProgressMonitor
        setRuntimePlatform getRuntimePlatform setMaxNbTactics getMaxNbTactics setTilingOptimizationLevel
        getTilingOptimizationLevel setL2LimitForTiling getL2LimitForTiling setRemoteAutoTuningConfig
        getRemoteAutoTuningConfig
    """,
    "VNetworkDefinition": """
        ~complete ~deleting addInput markOutput addActivation addLRN addScale addSoftMax addConcatenation
        addElementWise addUnary addShuffle getNbLayers getLayer getNbInputs getInput getNbOutputs getOutput addReduce
        addTopK addGather addRaggedSoftMax addMatrixMultiply addConstant addIdentity removeTensor unmarkOutput
        addPluginV2 addPluginV3 addSlice setName getName addShape hasImplicitBatchDimension markOutputForShapes
        unmarkOutputForShapes addParametricReLU addConvolutionNd addPoolingNd addDeconvolutionNd addScaleNd addResize
        addLoop addSelect addFill addPaddingNd setWeightsName setErrorRecorder getErrorRecorder addDequantize
        addQuantize addGatherV2 addIfConditional addScatter addEinsum addAssertion addOneHot addNonZero addGridSample
        addNMS addReverseSequence addNormalization addCast getBuilder getFlags getFlag addQuantizeV2 addDequantizeV2
        addFillV2 markDebug unmarkDebug isDebugTensor markWeightsRefittable unmarkWeightsRefittable
        areWeightsMarkedRefittable addSqueeze addUnsqueeze addDynamicQuantize addCumulative
        markUnfusedTensorsAsDebugTensors unmarkUnfusedTensorsAsDebugTensors addTopKV2 addNonZeroV2 addNMSV2
        addAttention addRotaryEmbedding addDynamicQuantizeV2 addKVCacheUpdate addNormalizationV2 addMoE
        addDistCollective
    """,
    "VTensor": """
        ~complete ~deleting setName getName setDimensions getDimensions setType getType setDynamicRange isNetworkInput
        isNetworkOutput setBroadcastAcrossBatch getBroadcastAcrossBatch getLocation setLocation dynamicRangeIsSet
        resetDynamicRange getDynamicRangeMin getDynamicRangeMax setAllowedFormats getAllowedFormats isShapeTensor
        isExecutionTensor setDimensionName getDimensionName
    """,
    "VLayer": """
        ~complete ~deleting getType setName getName getNbInputs getInput getNbOutputs getOutput setInput setPrecision
        getPrecision precisionIsSet resetPrecision setOutputType getOutputType outputTypeIsSet resetOutputType
        setMetadata getMetadata setNbRanks getNbRanks
    """,
    "VConstantLayer": """
        ~complete ~deleting setWeights getWeights setDimensions getDimensions
    """,
    "VHostMemory": """
        ~complete ~deleting data size type
    """,
    "VOptimizationProfile": """
        ~complete ~deleting setDimensions getDimensions setShapeValues getNbShapeValues getShapeValues
        setExtraMemoryTarget getExtraMemoryTarget isValid setShapeValuesV2 getShapeValuesV2
    """,
    "VTimingCache": """
        ~complete ~deleting serialize combine reset queryKeys query update
    """,
    "VRuntime": """
        ~complete ~deleting getPImpl deserializeCudaEngine deserializeCudaEngine#2 setDLACore getDLACore getNbDLACores
        setGpuAllocator setErrorRecorder getErrorRecorder getLogger setMaxThreads getMaxThreads setTemporaryDirectory
        getTemporaryDirectory setTempfileControlFlags getTempfileControlFlags getPluginRegistry setPluginRegistryParent
        loadRuntime setEngineHostCodeAllowed getEngineHostCodeAllowed deserializeCudaEngineV2
    """,
    "VCudaEngine": """
        ~complete ~deleting getPImpl getNbLayers serialize createExecutionContext
        createExecutionContextWithoutDeviceMemory getDeviceMemorySize isRefittable getName getNbOptimizationProfiles
        getProfileTensorValues getEngineCapability setErrorRecorder getErrorRecorder hasImplicitBatchDimension
        getTacticSources getProfilingVerbosity createEngineInspector getTensorShape getTensorDataType getTensorLocation
        isShapeInferenceIO getTensorIOMode getTensorBytesPerComponent getTensorComponentsPerElement getTensorFormat
        getTensorFormatDesc getTensorVectorizedDim getProfileShape getNbIOTensors getIOTensorName
        getHardwareCompatibilityLevel getNbAuxStreams getTensorBytesPerComponentV2 getTensorComponentsPerElementV2
        getTensorFormatV2 getTensorFormatDescV2 getTensorVectorizedDimV2 createSerializationConfig serializeWithConfig
        getDeviceMemorySizeForProfile createRefitter setWeightStreamingBudget getWeightStreamingBudget
        getMinimumWeightStreamingBudget getStreamableWeightsSize isDebugTensor setWeightStreamingBudgetV2
        getWeightStreamingBudgetV2 getWeightStreamingAutomaticBudget getWeightStreamingScratchMemorySize
        getDeviceMemorySizeV2 getDeviceMemorySizeForProfileV2 getProfileTensorValuesV2
        createExecutionContextWithRuntimeConfig createRuntimeConfig getEngineStat getAliasedInputTensor
    """,
    "VExecutionContext": """
        ~complete ~deleting getPImpl setDebugSync getDebugSync setProfiler getProfiler getEngine setName getName
        setDeviceMemory getOptimizationProfile allInputDimensionsSpecified allInputShapesSpecified setErrorRecorder
        getErrorRecorder executeV2 setOptimizationProfileAsync setEnqueueEmitsProfile getEnqueueEmitsProfile
        reportToProfiler setInputShape getTensorShape getTensorStrides setTensorAddress getTensorAddress
        setInputTensorAddress setOutputTensorAddress inferShapes setInputConsumedEvent getInputConsumedEvent
        getOutputTensorAddress setOutputAllocator getOutputAllocator getMaxOutputSize setTemporaryStorageAllocator
        getTemporaryStorageAllocator enqueueV3 setPersistentCacheLimit getPersistentCacheLimit setNvtxVerbosity
        getNvtxVerbosity setAuxStreams setDebugListener getDebugListener setTensorDebugState getDebugState
        setAllTensorsDebugState updateDeviceMemorySizeForShapes setDeviceMemoryV2 getRuntimeConfig
        setUnfusedTensorsDebugState getUnfusedTensorsDebugState setCommunicator
    """,
    "VEngineInspector": """
        ~complete ~deleting getPImpl setExecutionContext getExecutionContext getLayerInformation getEngineInformation
        setErrorRecorder getErrorRecorder
    """,
    "IParser": """
        parse parseFromFile supportsModel parseWithWeightDescriptors supportsOperator getNbErrors getError clearErrors
        ~complete ~deleting getUsedVCPluginLibraries setFlags getFlags clearFlag setFlag getFlag getLayerOutputTensor
        supportsModelV2 getNbSubgraphs isSubgraphSupported getSubgraphNodes loadModelProto loadInitializer
        parseModelProto setBuilderConfig
    """,
    "IParserError": """
        code desc file line func node nodeName nodeOperator localFunctionStack localFunctionStackSize ~complete
        ~deleting
    """,
}
"""TensorRT 10.16, of which 10.0 is a prefix."""

CHANGES_11: dict[str, tuple[str, str]] = {
    "VBuilder": (
        """
            platformHasFastFp16 platformHasFastInt8 platformHasTf32
        """,
        "",
    ),
    "VBuilderConfig": (
        """
            setInt8Calibrator getInt8Calibrator setAlgorithmSelector getAlgorithmSelector setCalibrationProfile
            getCalibrationProfile setQuantizationFlags getQuantizationFlags clearQuantizationFlag setQuantizationFlag
            getQuantizationFlag
        """,
        "setBuildRoute getBuildRoute getAllBuildRoutes",
    ),
    "VNetworkDefinition": (
        """
            addFill addDequantize addQuantize
        """,
        "addAttentionV2",
    ),
    "VTensor": (
        """
            setType setDynamicRange dynamicRangeIsSet resetDynamicRange getDynamicRangeMin getDynamicRangeMax
        """,
        "",
    ),
    "VLayer": (
        """
            setPrecision getPrecision precisionIsSet resetPrecision setOutputType outputTypeIsSet resetOutputType
        """,
        "",
    ),
    "VOptimizationProfile": (
        """
            setShapeValues getShapeValues
        """,
        "",
    ),
    "VRuntime": (
        """
            deserializeCudaEngine#2
        """,
        "",
    ),
    "VCudaEngine": (
        """
            createExecutionContextWithoutDeviceMemory getDeviceMemorySize getProfileTensorValues
            hasImplicitBatchDimension getDeviceMemorySizeForProfile setWeightStreamingBudget getWeightStreamingBudget
            getMinimumWeightStreamingBudget
        """,
        "",
    ),
    "VExecutionContext": (
        """
            allInputShapesSpecified
        """,
        "",
    ),
    "IParser": (
        """
            supportsModel parseWithWeightDescriptors
        """,
        "",
    ),
}
"""TensorRT 11: what it removed from the tables of 10, and what it appended."""
